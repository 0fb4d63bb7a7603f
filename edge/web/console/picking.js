// Where a photo comes from: dropped, chosen, pasted, or the device's camera.

import { explained, h, toast } from "./dom.js";

/** An area that takes a photo and hands it on; `.stop()` lets go of the camera. */
export function picturePicker(take, text = "Drop a photo here") {
  const file = h("input", { type: "file", accept: "image/*", onchange: () => given(file.files) });
  const snap = h("input", { type: "file", accept: "image/*", capture: "user", onchange: () => given(snap.files) });
  const camera = h("div.camera", { hidden: true });
  const zone = h(
    "div.drop",
    {
      ondragover: (event) => {
        event.preventDefault();
        zone.classList.add("over");
      },
      ondragleave: () => zone.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        given(event.dataTransfer.files);
      },
    },
    h("p", {}, text),
    h("div.row", {}, h("label.button.primary", {}, "Choose a photo", file), cameraButton()),
    camera,
  );
  let stream = null;

  function given(files) {
    const [one] = files;
    file.value = snap.value = "";
    stop();
    if (!one) return;
    if (!one.type.startsWith("image/")) return toast("That is no picture. JPEG, PNG, WebP and BMP are read.", true);
    take(one);
  }

  /** Live where the browser allows it (https, or this machine), else the phone's own camera app. */
  function cameraButton() {
    if (!navigator.mediaDevices) return h("label.button", {}, "Use the camera", snap);
    return h("button", { type: "button", onclick: start }, "Use the camera");
  }

  async function start() {
    stop();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    } catch (error) {
      return toast(error.name === "NotAllowedError" ? "The camera was not allowed. Allow it in the browser's bar, then try again." : `No camera: ${explained(error)}`, true);
    }
    const video = h("video", { autoplay: true, muted: true, playsInline: true, "aria-label": "The camera's picture" });
    video.srcObject = stream;
    const shoot = h("button.primary", { type: "button", onclick: () => shot(video) }, "Take the photo");
    camera.replaceChildren(video, h("div.row", {}, shoot, h("button", { type: "button", onclick: stop }, "Cancel")));
    camera.hidden = false;
    shoot.focus();
  }

  async function shot(video) {
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => given([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.95);
  }

  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    camera.hidden = true;
    camera.replaceChildren();
  }

  return { element: zone, stop };
}
