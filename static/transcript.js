// The lines of the conversation as the page shows them.

export class Transcript {
  #list;
  #items = new Map(); // by utterance or turn, of the session that is open
  #responses = new Map(); // the text of responses that are still coming, by turn

  constructor(list) {
    this.#list = list;
    // The newest line stays in sight when a phone's keyboard or the details below take room.
    const showNewest = () => list.lastElementChild?.scrollIntoView({ block: 'nearest' });
    new ResizeObserver(showNewest).observe(list.parentElement);
  }

  // The gateway numbers utterances and turns anew in each session. An interim that has no final yet gets none.
  restart() {
    for (const item of this.#list.querySelectorAll('.interim')) item.remove();
    this.#items.clear();
    this.#responses.clear();
  }

  note(text) {
    this.#append('', 'note', text);
  }

  typed(text) {
    this.#append('You', 'you', text);
  }

  // An interim replaces the one before it. A final without text means that nothing was said.
  transcription({ utteranceId, text, isFinal }) {
    const item = this.#put(utteranceId, 'You', isFinal ? 'you' : 'interim', text);
    if (isFinal && !text) item.remove();
  }

  responseDelta({ turnId, text }) {
    const whole = (this.#responses.get(turnId) ?? '') + text;
    this.#responses.set(turnId, whole);
    this.#put(turnId, 'June', 'june', whole);
  }

  responseDone({ turnId, text, finish }) {
    this.#responses.delete(turnId);
    if (text) this.#put(turnId, 'June', finish === 'stop' ? 'june' : 'june cut', text);
  }

  #put(key, who, kind, text) {
    const known = this.#items.get(key);
    if (!known) {
      const item = this.#append(who, kind, text);
      this.#items.set(key, item);
      return item;
    }
    known.className = kind;
    known.textContent = text;
    known.scrollIntoView({ block: 'nearest' });
    return known;
  }

  #append(who, kind, text) {
    const item = document.createElement('li');
    item.dataset.who = who;
    item.className = kind;
    item.textContent = text;
    this.#list.append(item);
    item.scrollIntoView({ block: 'nearest' });
    return item;
  }
}
