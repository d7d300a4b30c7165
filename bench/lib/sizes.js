const bodies = new Map();

/**
 * So many bytes of text, made once.
 * @param {number} bytes
 * @returns {Buffer}
 */
export function bodyOf(bytes) {
  if (!bodies.has(bytes)) bodies.set(bytes, Buffer.alloc(bytes, 'offloop '));
  return bodies.get(bytes);
}
