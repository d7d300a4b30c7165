/** Call this when everything is built. */
export function mergeChunks(): Promise<void>;
