import { readFileSync, readdirSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

const SAMPLES = new URL("../../samples/", import.meta.url);

/** One clip to try, as `samples/samples.csv` describes it; a clip of several rows is taken whole. */
interface Sample {
  file: string;
  what: string;
}

function sampleList(): Sample[] {
  const rows = readFileSync(new URL("samples.csv", SAMPLES), "utf8").trim().split("\n").slice(1);
  const found = new Map<string, Sample>();
  for (const row of rows) {
    const [file, label, what, start] = row.split(",");
    if (file === undefined || what === undefined || found.has(file)) continue;
    found.set(file, { file, what: start ? "three digits, one after another" : label ? `${label}: ${what}` : what });
  }
  return [...found.values()];
}

/** Put the clips that the demo bundle can be tried with beside the page. */
function samples(): Plugin {
  return {
    name: "samples",
    generateBundle() {
      const list = sampleList();
      for (const name of readdirSync(SAMPLES)) {
        if (!list.some((one) => one.file === name)) continue;
        this.emitFile({ type: "asset", fileName: `samples/${name}`, source: readFileSync(new URL(name, SAMPLES)) });
      }
      const source = JSON.stringify({ model: "avdigits", samples: list });
      this.emitFile({ type: "asset", fileName: "samples/index.json", source });
    },
  };
}

export default defineConfig({
  // All addresses are relative: a proxy may show the server below any path.
  base: "./",
  plugins: [samples()],
  build: {
    outDir: "../dimml_server/console/static",
    emptyOutDir: true,
    // The page's policy allows no data: URLs and nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "THIRD_PARTY_LICENSES.md" },
    target: "es2022",
    // light-dark() and color-mix() as they are.
    cssTarget: ["chrome123", "firefox128", "safari17.5"],
    reportCompressedSize: false,
  },
});
