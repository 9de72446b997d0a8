/** What all tabs share: the models that are served, the one in use, and the recording at hand. */
import type { ReactiveController, ReactiveControllerHost } from "lit";
import { api } from "./api/client";
import type { Model } from "./api/types";

/** A recording, or a file for each modality; `url` is what a browser plays, if it does. */
export interface Recording {
  name: string;
  media: File | null;
  parts: Record<string, File>;
  url: string;
  kind: "video" | "audio" | "image";
}

class Session extends EventTarget {
  models: Model[] = [];
  model: Model | null = null;
  recording: Recording | null = null;

  async loadModels(): Promise<void> {
    this.models = await api.models();
    const same = this.models.find((one) => one.name === this.model?.name && one.version === this.model.version);
    this.model = same ?? this.models.find((one) => one.default) ?? this.models[0] ?? null;
    this.#tell();
  }

  choose(name: string, version: number): void {
    this.model = this.models.find((one) => one.name === name && one.version === version) ?? this.model;
    this.#tell();
  }

  /** Take a recording in hand, in place of the one before. */
  open(media: File | null, parts: Record<string, File> = {}): void {
    if (this.recording) URL.revokeObjectURL(this.recording.url);
    const files = [media, ...Object.values(parts)].filter((one) => one !== null);
    const shown = files.find((one) => one.type.startsWith("video/")) ?? files[0];
    if (shown === undefined) return;
    const kind = shown.type.startsWith("audio/") ? "audio" : shown.type.startsWith("image/") ? "image" : "video";
    const name = files.map((one) => one.name).join(" + ");
    this.recording = { name, media, parts, url: URL.createObjectURL(shown), kind };
    this.#tell();
  }

  get modalities(): string[] {
    return this.model?.modalities.map((one) => one.name) ?? [];
  }

  /** The body of a call about the recording at hand. */
  form(fields: Record<string, string | number | null | undefined> = {}): FormData {
    const form = new FormData();
    if (this.model) {
      form.append("model", this.model.name);
      form.append("version", String(this.model.version));
    }
    for (const [name, value] of Object.entries(fields)) {
      if (value !== null && value !== undefined && value !== "") form.append(name, String(value));
    }
    for (const [name, file] of Object.entries(this.recording?.parts ?? {})) form.append(name, file, file.name);
    if (this.recording?.media) form.append("media", this.recording.media, this.recording.media.name);
    return form;
  }

  #tell(): void {
    this.dispatchEvent(new Event("change"));
  }
}

export const session = new Session();

/** Draws its host again when the session changes, and says first what to do about it. */
export class SessionWatch implements ReactiveController {
  constructor(
    private readonly host: ReactiveControllerHost,
    private readonly changed: () => void = () => undefined,
  ) {
    host.addController(this);
  }

  readonly #listen = (): void => {
    this.changed();
    this.host.requestUpdate();
  };

  hostConnected(): void {
    session.addEventListener("change", this.#listen);
  }

  hostDisconnected(): void {
    session.removeEventListener("change", this.#listen);
  }
}
