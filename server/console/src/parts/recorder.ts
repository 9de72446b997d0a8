/** Records from camera and microphone into one file, as MediaRecorder of this browser makes it. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { messageOf } from "../api/client";
import { shared } from "../look/shared";
import { session } from "../session";

/** WebM first: Chromium's MP4 loses the offset between sound and picture, and `codecs=h264` gives Matroska. */
const WITH_PICTURE = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
const SOUND_ALONE = ["audio/webm;codecs=opus", "audio/webm", "audio/ogg", "audio/mp4"];
const LONGEST_S = 60;

@customElement("dm-recorder")
export class Recorder extends LitElement {
  static override styles = [
    shared,
    css`
      .box {
        display: grid;
        gap: 12px;
        background: var(--raised);
        border-radius: 12px;
        padding: 14px;
      }
      video {
        width: 100%;
        max-height: 260px;
        border-radius: 8px;
        background: #000;
      }
      .live {
        display: inline-flex;
        gap: 8px;
        align-items: center;
        font-variant-numeric: tabular-nums;
      }
      .live i {
        width: 10px;
        height: 10px;
        border-radius: 50%;
        background: var(--bad);
      }
    `,
  ];

  @state() private picture = true;
  @state() private sound = true;
  @state() private since = 0;
  @state() private elapsed = 0;
  @state() private problem = "";
  @query("video") private readonly video?: HTMLVideoElement;
  #recorder: MediaRecorder | null = null;
  #timer = 0;

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#release();
  }

  private async start(): Promise<void> {
    this.problem = "";
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: this.picture, audio: this.sound });
      const type = (this.picture ? WITH_PICTURE : SOUND_ALONE).find((one) => MediaRecorder.isTypeSupported(one));
      const recorder = new MediaRecorder(stream, type === undefined ? {} : { mimeType: type });
      // One blob at the end: a sliced one has neither duration nor cues.
      recorder.addEventListener("dataavailable", (event) => this.#keep(event.data, recorder.mimeType), { once: true });
      recorder.start();
      this.#recorder = recorder;
      this.since = performance.now();
      this.#timer = window.setInterval(() => this.#tick(), 100);
      await this.updateComplete;
      if (this.video) this.video.srcObject = stream;
    } catch (error) {
      const denied = error instanceof DOMException && error.name === "NotAllowedError";
      this.problem = denied ? "The browser does not allow the camera or the microphone here." : messageOf(error);
      this.#release();
    }
  }

  #tick(): void {
    this.elapsed = (performance.now() - this.since) / 1000;
    if (this.elapsed >= LONGEST_S) this.stop();
  }

  private stop(): void {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }

  #keep(blob: Blob, type: string): void {
    this.#release();
    // What the browser says it recorded, not what it was asked for.
    const plain = type.split(";")[0] ?? "";
    const ending = plain.split("/")[1] ?? "webm";
    session.open(new File([blob], `recording.${ending === "x-matroska" ? "mkv" : ending}`, { type: plain }));
    this.dispatchEvent(new Event("done"));
  }

  #release(): void {
    window.clearInterval(this.#timer);
    for (const track of this.#recorder?.stream.getTracks() ?? []) track.stop();
    this.#recorder = null;
    this.since = this.elapsed = 0;
  }

  override render() {
    if (!window.isSecureContext || !("mediaDevices" in navigator)) {
      return html`<p class="alert calm">
        Browsers give camera and microphone only to pages from this machine (localhost) or over TLS. Open the console by
        https, or choose a file.
      </p>`;
    }
    return html`<div class="box">
      ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
      ${this.since > 0
        ? html`${this.picture ? html`<video muted autoplay playsinline aria-label="What is recorded"></video>` : nothing}
            <div class="row spread">
              <span class="live" role="timer"><i class="busy"></i>${this.elapsed.toFixed(1)} s of ${LONGEST_S} s at most</span>
              <button class="main" @click=${this.stop}>Stop and judge</button>
            </div>`
        : html`<div class="row">
            ${this.#choice("Camera", this.picture, (on) => {
              this.picture = on;
            })}
            ${this.#choice("Microphone", this.sound, (on) => {
              this.sound = on;
            })}
            <button class="main" ?disabled=${!this.picture && !this.sound} @click=${this.start}>Start recording</button>
            <button @click=${() => this.dispatchEvent(new Event("done"))}>Cancel</button>
          </div>`}
    </div>`;
  }

  #choice(name: string, on: boolean, set: (on: boolean) => void) {
    return html`<label class="check">
      <input
        type="checkbox"
        .checked=${on}
        @change=${(event: Event) => set((event.target as HTMLInputElement).checked)}
      />${name}
    </label>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-recorder": Recorder;
  }
}
