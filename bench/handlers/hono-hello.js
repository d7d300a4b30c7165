import { Hono } from 'hono';

/** The smallest honest answer of a Hono app. */
export default new Hono().get('/', (c) => c.text('Hello, World!'));
