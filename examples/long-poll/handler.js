// GET waits for the next notification, POST sends one. A waiting request holds no thread.
// What comes between two polls is missed. Where that matters, number them and keep the last ones in a database.
import { asChannel, publish } from 'offloop/handlers';

const PATIENCE = Number(process.env.PATIENCE ?? 25_000); // less than proxies and browsers wait

export default async (req) => {
  if (req.method === 'POST') {
    publish('notifications', await req.text(), { close: true });
    return { status: 202 };
  }
  if (req.method !== 'GET') return { status: 405, headers: { allow: 'GET, POST' } };
  let timer;
  return asChannel(req, {
    topics: ['notifications'],
    onOpen(channel) {
      timer = setTimeout(() => channel.send({ status: 204 }), PATIENCE); // nothing new: ask again
    },
    onClose: () => clearTimeout(timer),
  });
};
