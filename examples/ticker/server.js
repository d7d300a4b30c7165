// One to many: the program that runs the server publishes prices, and every subscriber gets them.
// Connect WebSockets to ws://127.0.0.1:8090/ACME, or: curl -N http://127.0.0.1:8090/ACME
import { runServer } from 'offloop';
import { formatEvent } from 'offloop/handlers';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}/ACME`);

const prices = new Map([
  ['ACME', 100],
  ['GLOBEX', 42],
]);
const ticking = setInterval(
  () => {
    for (const [symbol, before] of prices) {
      const price = Math.max(1, before + Math.random() * 2 - 1);
      prices.set(symbol, price);
      const tick = JSON.stringify({ symbol, price: price.toFixed(2) });
      server.publish(`${symbol} for sockets`, tick);
      server.publish(`${symbol} for streams`, formatEvent(tick));
    }
  },
  Number(process.env.EVERY ?? 1000),
);

async function stop() {
  clearInterval(ticking);
  await server.stop();
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
