/** What the bodies of responses are read from. On the thread of the handler. */

/**
 * A body of known length, such as a file or a range of one. It goes out with Content-Length, read chunk by chunk when there
 * is room for more.
 */
export interface SizedSource {
  /** Bytes that `chunks` yields, exactly: with less the connection is cut, more is never sent, and both are reported. */
  readonly length: number;
  /**
   * Read it. Called at most once, and not at all when no body is sent (HEAD, 204, 304). Chunks should be of 64 KiB or so; each
   * lies in an ArrayBuffer of its own that nobody else keeps, since that is transferred to another thread.
   */
  chunks(): AsyncIterable<Uint8Array>;
  /** Called once in any case, when it will not be read any further: at the end, after a failure, or unread. */
  close?(): unknown;
}
