import { file } from '../../dist/handlers/index.js';

const root = process.env.BENCH_FOLDER;

/** The files of a folder. */
export default ({ pathInfo }) => ({ body: file(pathInfo, { root }) });
