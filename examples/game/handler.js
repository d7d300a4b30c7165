// The state of a connection lives in the closures of its callbacks. They all run on the worker that accepted it, so there is
// nothing to look up and nothing to clean up. In Ring's shape, for which no other import is needed:
import { randomInt } from 'node:crypto';

export default () => {
  const secret = randomInt(1, 101);
  let guesses = 0;
  return {
    websocket: {
      onOpen: (socket) => socket.send('I think of a number from 1 to 100.'),
      onMessage(socket, message) {
        const guess = Number(message);
        if (message === '' || !Number.isInteger(guess)) return socket.send('That is no whole number.');
        guesses++;
        if (guess !== secret) return socket.send(guess < secret ? 'Higher.' : 'Lower.');
        socket.send(`Yes! You took ${guesses}.`);
        return socket.close(1000, 'guessed');
      },
    },
  };
};
