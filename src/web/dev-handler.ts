/** What `runDev` loads into workers: the handler module that the URL of this one names, with the error page around it. */
import { loadModule } from '../handlers/module.js';
import { withErrorPage } from './dev-page.js';

const query = new URLSearchParams(import.meta.url.slice(import.meta.url.indexOf('?')));
const module = await loadModule(query.get('module') as string);

export default withErrorPage(module.handler);
export const { onWorkerStart, onWorkerStop } = module;
