// What one writes with ws: a list of visitors, and on a move a loop that tells each of them their
// own numbers. Says its address as one line of JSON once it listens, and ends at SIGTERM or when its
// standard input does.

import { createServer } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';

// Connections that wait to be accepted: a crowd comes at once, and none should be turned away.
const BACKLOG = 4096;
const MESSAGE_BYTES_MAX = 4096;

/** In the order of the line; a socket that is merely gone keeps its place. */
const line = new Set();
let joined = 0;

function update(socket, count) {
  const payload = {
    position: count + 1,
    count,
    waiting: line.size,
    // As at ten a second, so that its digits are there.
    seconds: Math.floor(count / 10),
    status: 'open',
  };
  socket.send(JSON.stringify({ type: 'QUEUE_UPDATE', payload }));
}

function join(socket) {
  if (line.has(socket)) return socket.close(1008);
  const payload = { queue: 'bench', reconnectWithin: 300 };
  socket.send(JSON.stringify({ type: 'JOINED', connectionId: `bench-${joined++}`, payload }));
  line.add(socket);
  update(socket, line.size - 1);
}

function leave(leaver) {
  if (!line.has(leaver)) return leaver.close(1008);
  leaver.send(JSON.stringify({ type: 'ENDED', payload: { reason: 'left' } }));
  leaver.close(1000);
  let count = 0;
  for (const socket of line) {
    if (socket === leaver) {
      line.delete(leaver);
      continue;
    }
    const isBehind = !line.has(leaver);
    if (isBehind && socket.readyState === WebSocket.OPEN) update(socket, count);
    count++;
  }
}

function hear(data) {
  switch (JSON.parse(data).type) {
    case 'JOIN':
      return join(this);
    case 'LEAVE':
      return leave(this);
    default:
      return this.close(1008);
  }
}

const http = createServer();
const server = new WebSocketServer({
  server: http,
  perMessageDeflate: false,
  clientTracking: false,
  maxPayload: MESSAGE_BYTES_MAX,
});
server.on('connection', (socket) => {
  socket.on('message', hear);
  // It is closed then, and nobody is there to be told.
  socket.on('error', () => {});
});
http.listen({ port: 0, host: '127.0.0.1', backlog: BACKLOG }, () => {
  const url = `ws://127.0.0.1:${http.address().port}/ws/bench`;
  console.log(JSON.stringify({ url, pid: process.pid }));
});
process.stdin.resume().on('end', () => process.exit(0));
