// Inline, on the thread that owns the sockets: cheap, and answered even when every worker is busy. It must never compute.
import { type Handler, json } from 'offloop/handlers';

const handler: Handler = () => json({ now: new Date().toISOString() });

export default handler;
