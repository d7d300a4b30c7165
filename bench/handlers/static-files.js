import { staticFiles } from '../../dist/middleware/index.js';

/** The same by the middleware for it. */
export default staticFiles(process.env.BENCH_FOLDER)(() => null);
