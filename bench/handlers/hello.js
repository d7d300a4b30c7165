/** The smallest honest answer: everything a server adds to it is the server's own cost. */
export default () => ({ status: 200, headers: { 'content-type': 'text/plain' }, body: 'Hello, World!' });
