import { text } from 'offloop/handlers';

export default () => text('pong', { headers: { 'cache-control': 'no-store' } });
