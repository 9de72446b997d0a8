/** The recording as the browser plays it; says so where it does not. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { shared } from "../look/shared";
import { SessionWatch, session } from "../session";

@customElement("dm-player")
export class Player extends LitElement {
  static override styles = [
    shared,
    css`
      figure {
        display: grid;
        gap: 8px;
      }
      video,
      img {
        display: block;
        width: 100%;
        max-height: 340px;
        object-fit: contain;
        background: #0c0d0f;
        border-radius: 12px;
      }
      img {
        image-rendering: auto;
      }
      audio {
        width: 100%;
        height: 44px;
      }
      figcaption {
        font-size: 13px;
        color: var(--soft);
        min-width: 0;
      }
    `,
  ];

  @state() private plays = true;
  @query("video, audio") readonly media?: HTMLMediaElement | null;
  #url = "";

  constructor() {
    super();
    new SessionWatch(this, () => {
      if (session.recording?.url !== this.#url) this.plays = true;
      this.#url = session.recording?.url ?? "";
    });
  }

  /** Seconds of the recording, where the browser knows. */
  get duration(): number | null {
    const found = this.media?.duration;
    return found !== undefined && Number.isFinite(found) && found > 0 ? found : null;
  }

  seek(seconds: number): void {
    if (this.media) this.media.currentTime = seconds;
  }

  /** Play a stretch, and stop at its end. */
  async play(start: number, end: number): Promise<void> {
    const media = this.media;
    if (!media) return;
    media.currentTime = start;
    const watch = (): void => {
      if (media.currentTime < end && !media.paused) return;
      media.pause();
      media.removeEventListener("timeupdate", watch);
    };
    await media.play();
    media.addEventListener("timeupdate", watch);
  }

  private told(name: "ready" | "moved"): void {
    this.dispatchEvent(new Event(name));
  }

  override render() {
    const recording = session.recording;
    if (recording === null) return nothing;
    return html`<figure>
      ${this.plays
        ? this.#shown(recording.kind, recording.url)
        : html`<p class="alert calm">
            This browser does not play this file. The server may still read it: what it decoded is shown below.
          </p>`}
      <figcaption class="clip" title=${recording.name}>${recording.name}</figcaption>
    </figure>`;
  }

  #shown(kind: "video" | "audio" | "image", url: string) {
    const failed = (): void => {
      this.plays = false;
    };
    const moved = (): void => this.told("moved");
    const ready = (): void => this.told("ready");
    if (kind === "image") return html`<img src=${url} alt="The picture that was sent" @error=${failed} />`;
    if (kind === "audio") {
      return html`<audio
        controls
        src=${url}
        aria-label="The sound that was sent"
        @error=${failed}
        @timeupdate=${moved}
        @durationchange=${ready}
      ></audio>`;
    }
    return html`<video
      controls
      playsinline
      src=${url}
      aria-label="The recording that was sent"
      @error=${failed}
      @timeupdate=${moved}
      @durationchange=${ready}
    ></video>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-player": Player;
  }
}
