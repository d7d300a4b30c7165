// One handler for every subdomain, another for one path of all, a third for everybody else; and one call to stop them all.
// node examples/tenants/server.js, then curl -H 'Host: ada.example.com' http://127.0.0.1:8080/notes
import { nativeHandler, run, stop } from 'offloop/web';

const handler = new URL('./handler.js', import.meta.url);
const all = { host: '127.0.0.1', port: Number(process.env.PORT ?? 8080), virtualHost: '*.example.com' };

const tenants = await run(handler, all);
const api = await run(handler, { ...tenants, path: '/api', handlerTimeout: 5000 });
const everything = await run(
  nativeHandler((res) => res.writeStatus('421 Misdirected Request').end('no such tenant\n')),
  { ...api, path: '/', virtualHost: null },
);
console.log(`listening on http://127.0.0.1:${everything.port}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop(everything));
