// What comes from the program: its status every two seconds, its events as they happen.
//
// Both are fetched with the token in a header; EventSource could not send one. Only the tab's
// session keeps it.

const EVERY = 2000;
const PATIENCE = 10_000;
const SOON = 300;
const LONGEST_WAIT = 15_000;
const MOST_TUNNELS = 1000;
const KEY = "konnectivity-token";

export class Feed {
  /**
   * `status(document)`, `event(event)` and `state(name, problem)` are told what is new; a state is
   * live, lost or paused. `token(problem)` asks for one and promises it.
   */
  constructor(listener) {
    this.listener = listener;
    this.paused = false;
    this.token = sessionStorage.getItem(KEY) ?? "";
    this.last = "0";
    this.asking = null;
    this.silence = "";
    this.news = false;
    this.least = SOON;
    this.stop = new AbortController();
    this.wake = () => {};
  }

  start() {
    this.poll();
    this.follow();
    document.addEventListener("visibilitychange", () => this.wake(0));
  }

  /** Stop or go on; events that come meanwhile are told afterwards. */
  pause(paused) {
    this.paused = paused;
    if (paused) this.listener.state("paused", "");
    this.wake(0);
  }

  /** Look again soon, because something has happened; a flood of that is one look. */
  soon() {
    this.news = true;
    this.wake(this.least);
  }

  forget() {
    sessionStorage.removeItem(KEY);
    this.token = "";
    this.stop.abort();
    this.wake(0);
  }

  async poll() {
    let failures = 0;
    for (;;) {
      const began = performance.now();
      let wait = LONGEST_WAIT;
      this.news = false;
      if (!this.paused && !document.hidden) {
        try {
          const text = await this.text(`api/v1/status?tunnels=${MOST_TUNNELS}`);
          const status = JSON.parse(text);
          failures = 0;
          if (!this.paused) {
            this.listener.status(status);
            this.listener.state("live", this.silence);
          }
          // What takes long is done less often.
          const took = performance.now() - began;
          this.least = Math.max(SOON, 2 * took);
          wait = this.news ? this.least : Math.max(EVERY, 10 * took);
        } catch (error) {
          failures += 1;
          wait = Math.min(1000 * 2 ** (failures - 1), LONGEST_WAIT);
          if (!this.paused) this.listener.state("lost", because(error));
        }
      }
      await this.sleep(wait);
    }
  }

  /** Wait, or less than that if something wakes us. */
  sleep(wait) {
    return new Promise((resolve) => {
      let due = performance.now() + wait;
      let timer = setTimeout(resolve, wait);
      this.wake = (within) => {
        const sooner = performance.now() + within;
        if (sooner >= due) return;
        due = sooner;
        clearTimeout(timer);
        timer = setTimeout(resolve, within);
      };
    });
  }

  async follow() {
    for (;;) {
      try {
        await this.stream();
      } catch (error) {
        const reason = because(error);
        this.silence = reason && `no events: ${reason}`;
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  async stream() {
    this.stop = new AbortController();
    const { signal } = this.stop;
    const path = `api/v1/events?after=${encodeURIComponent(this.last)}`;
    const response = await this.ask(path, () => signal);
    this.silence = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      parts.forEach((part) => this.tell(part));
    }
  }

  /** One event of the stream, or a comment. */
  tell(part) {
    const line = part.split("\n").find((each) => each.startsWith("data: "));
    if (!line) return;
    const event = JSON.parse(line.slice("data: ".length));
    this.last = event.id;
    this.listener.event(event);
  }

  async text(path) {
    const response = await this.ask(path, () => AbortSignal.timeout(PATIENCE));
    return response.text();
  }

  /** The answer to a request that was granted; asks the reader for a token as long as it takes. */
  async ask(path, signal) {
    for (;;) {
      const token = this.token;
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const response = await fetch(path, { headers, signal: signal(), cache: "no-store" }).catch(
        unreachable,
      );
      if (response.ok) return response;
      if (response.status !== 401) throw new Error(await refusal(response));
      if (token === this.token) await this.another(token ? "That token was refused." : "");
    }
  }

  /** Both loops wait for the one question. */
  another(problem) {
    this.asking ??= this.listener.token(problem).then((token) => {
      this.token = token;
      sessionStorage.setItem(KEY, token);
      this.asking = null;
    });
    return this.asking;
  }
}

/** A connection that cannot be had is a TypeError to `fetch`, and says nothing. */
function unreachable(error) {
  throw error instanceof TypeError ? new Error("") : error;
}

async function refusal(response) {
  const words = await response.text();
  return `${words.slice(0, 120).trim()} (HTTP status ${response.status})`;
}

/** The reason in words; empty where the connection itself says nothing. */
function because(error) {
  if (error.name === "AbortError") return "";
  if (error.name === "TimeoutError") return "no answer";
  if (error instanceof SyntaxError) return "the answer is not whole";
  return error instanceof TypeError ? "the answer is not understood" : error.message;
}
