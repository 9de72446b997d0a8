// Node's fetch: reads requests as lines (see cases.py), writes one line per answer.
import { openAsBlob } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { createInterface } from "node:readline";

const base = process.argv[2];
const boundary = "dimml-8f14e45fceea167a";

async function form(file, fields) {
  const data = new FormData();
  data.append("media", await openAsBlob(file, { type: "video/mp4" }), basename(file));
  for (const [name, value] of new URLSearchParams(fields)) data.append(name, value);
  return { body: data };
}

async function stream(file) {
  const head = `--${boundary}\r\nContent-Disposition: form-data; name="media"; filename="${basename(file)}"\r\n\r\n`;
  const pieces = [Buffer.from(head), await readFile(file), Buffer.from(`\r\n--${boundary}--\r\n`)];
  return {
    body: ReadableStream.from(pieces),
    duplex: "half",
    headers: { "Content-Type": `multipart/form-data; boundary=${boundary}` },
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const [name, method, path, file, fields, ways] = line.split("\t");
  let status = 0;
  let body;
  try {
    const content = !file ? {} : ways.includes("chunked") ? await stream(file) : await form(file, fields);
    const answer = await fetch(base + path, { method, ...content });
    status = answer.status;
    body = Buffer.from(await answer.arrayBuffer());
  } catch (error) {
    body = Buffer.from(`${error}: ${error.cause}`);
  }
  console.log([name, status, "1.1", body.toString("base64")].join("\t"));
}
