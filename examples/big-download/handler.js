// A file that is there already, and large: the Node.js that runs this. It is read as fast as the client takes it, and who was
// interrupted gets the rest: curl -C - sends a Range, a browser If-Range too.
import { file } from 'offloop/handlers';

export default () => ({ body: file(process.execPath, { download: 'node.bin' }) });
