import { copyFile } from 'node:fs/promises';
import { defineConfig } from 'tsup';
import { mergeChunks } from './scripts/merge-chunks.mjs';

// The doors of the package. A new leaf gets a line here and a line in package.json's exports.
const doors = {
  index: 'src/index.ts',
  'handlers/index': 'src/handlers/index.ts',
  'middleware/index': 'src/middleware/index.ts',
  'testing/index': 'src/testing/index.ts',
  'web/index': 'src/web/index.ts',
};

export default defineConfig({
  entry: {
    ...doors,
    // Not a door: what each worker thread runs. thread.cjs, which loads it, is copied as it is.
    'handlers/entry': 'src/handlers/entry.ts',
    // Not a door either: the command line.
    'cli/main': 'src/cli/main.ts',
    // Nor is this: what runDev loads into workers.
    'web/dev-handler': 'src/web/dev-handler.ts',
  },
  format: ['esm'],
  platform: 'node',
  target: 'node20',
  // What two entries share becomes dist/chunk-*.js. Those chunks lie at the root of dist, and so does everything
  // bundled into index.js: a URL built on import.meta.url is right only in a file directly under src/.
  splitting: true,
  sourcemap: true,
  clean: true,
  dts: { entry: doors },
  // tsup drops the "node:" of built-in modules unless told not to.
  removeNodeProtocol: false,
  onSuccess: async () => {
    await copyFile('src/handlers/thread.cjs', 'dist/handlers/thread.cjs');
    await mergeChunks();
  },
  // tsup leaves dependencies and peers alone by itself, but not optional dependencies.
  external: ['uWebSockets.js', '@btc-vision/uwebsockets.js', '@trufflesuite/uws-js-unofficial'],
});
