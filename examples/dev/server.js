// A handler under development: save handler.js or greeting.js, and the next request runs the new code.
import { runDev, stop } from 'offloop/web';

const result = await runDev(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8080),
});
console.log(`listening on http://localhost:${result.port}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop(result));
