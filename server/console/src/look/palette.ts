/** One colour per modality, the same in every tab, in report.html and in plots: by its place in the bundle. */

const COLOURS = 6;

/** The class (`c0` to `c5`) that gives a head its colour; the head on all features comes after the modalities. */
export function colourClass(name: string, modalities: readonly string[]): string {
  const place = modalities.indexOf(name);
  return `c${(place < 0 ? modalities.length : place) % COLOURS}`;
}

/** What a custom property such as `--c0` is now, as `rgb(…)`: a canvas cannot use `light-dark()` itself. */
export function resolved(element: Element, property: string): string {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${property})`;
  (element.shadowRoot ?? element).append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** Red, green and blue of `rgb(…)`. */
export function channels(colour: string): [number, number, number] {
  const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/g) ?? []).map(Number);
  return [red, green, blue];
}
