// One stream for all tabs of a browser: over HTTP/1.1 it has six connections to a host, and a tab that held one for good would
// leave the seventh without any. Each tab opens and closes its end; the stream is open while anybody listens. A classic script.
(() => {
  "use strict";
  const NAMES = ["hello", "second", "sources", "sets", "mark", "end", "alive"];
  /** What the stream begins with; who comes later is told it as it was last. */
  const FIRST = ["hello", "sources", "sets"];
  const ports = new Set();
  const known = new Map();
  let source = null;

  const tell = (...message) => ports.forEach((port) => port.postMessage(message));

  function close() {
    source?.close();
    source = null;
    known.clear();
  }

  function lost() {
    close();
    tell("error");
  }

  function open() {
    source = new EventSource("/api/v1/stream");
    source.onerror = lost;
    for (const name of NAMES) {
      source.addEventListener(name, ({ data }) => {
        if (FIRST.includes(name)) known.set(name, data);
        tell(name, data);
        if (name === "end") close();
      });
    }
  }

  const asked = {
    open(port) {
      ports.add(port);
      if (!source) open();
      for (const [name, data] of known) port.postMessage([name, data]);
    },
    close(port) {
      ports.delete(port);
      if (!ports.size) close();
    },
    lost,
  };
  globalThis.onconnect = ({ ports: [port] }) => (port.onmessage = ({ data }) => asked[data](port));
})();
