// POST a PNG, get it back `width` pixels wide. npm install @jsquash/png @jsquash/resize
import { readFile } from 'node:fs/promises';
import decode, { init as initDecoder } from '@jsquash/png/decode.js';
import encode, { init as initEncoder } from '@jsquash/png/encode.js';
import resize, { initResize } from '@jsquash/resize';
import { text } from 'offloop/handlers';

const MOST_PIXELS = 25_000_000;
const WIDEST = 4000;

// The libraries are made for browsers, and hand images on as these.
globalThis.ImageData ??= class ImageData {
  constructor(data, width, height) {
    Object.assign(this, { data, width, height });
  }
};

const wasm = async (name) => WebAssembly.compile(await readFile(new URL(import.meta.resolve(name))));

/** Compile before the first request comes. */
export async function onWorkerStart() {
  const png = await wasm('@jsquash/png/codec/pkg/squoosh_png_bg.wasm');
  await initDecoder(png);
  await initEncoder(png);
  await initResize(await wasm('@jsquash/resize/lib/resize/pkg/squoosh_resize_bg.wasm'));
}

export default async function handler(req) {
  if (req.method !== 'POST') return text("curl --data-binary @photo.png '.../?width=200' -o small.png\n");
  const width = Number(new URLSearchParams(req.query ?? '').get('width'));
  if (!Number.isInteger(width) || width < 1 || width > WIDEST)
    return text(`width: a whole number from 1 to ${WIDEST}\n`, { status: 422 });

  const bytes = await req.bytes();
  const size = sizeOf(bytes);
  if (size === null) return text('not a PNG\n', { status: 415 });
  // Before it is unpacked: a file of a few kilobytes can hold an image of gigabytes.
  if (size.width * size.height > MOST_PIXELS)
    return text(`more than ${MOST_PIXELS} pixels\n`, { status: 413 });

  let image;
  try {
    image = await decode(bytes);
  } catch {
    return text('a broken PNG\n', { status: 422 });
  }
  const height = Math.max(1, Math.round((size.height * width) / size.width));
  const small = await encode(await resize(image, { width, height }));
  return { headers: { 'content-type': 'image/png' }, body: small };
}

/** What the head of a PNG says, or null. */
function sizeOf(bytes) {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(24, bytes.byteLength));
  if (head.byteLength < 24 || head.toString('latin1', 1, 4) !== 'PNG') return null;
  return { width: head.readUInt32BE(16), height: head.readUInt32BE(20) };
}
