// Plays the frames of a response and tells the gateway how far it is (docs/PROTOCOL.md, "Audio frames to the client").

import { OpusDecoder } from './opus.js';

const END = 4; // a flag of frames
const PLAYHEAD_EVERY_MS = 250;
// What a frame is scheduled ahead, so that it is not late when the audio thread gets it.
const LEAD_S = 0.02;

export class Player {
  #context = new AudioContext();
  #report;
  #timer;
  #generation = 0; // 0 while nothing is played
  #sampleRate = 0;
  #position = 0; // samples taken since speech_begin
  #decoder = null; // of a response in Opus
  #endsAt = 0; // when the last scheduled frame is over, by the context's clock
  #scheduled = []; // frames that the playhead has not passed
  #sources = new Set();

  // Browsers let a page play only after a gesture: construct this in the handler of one.
  // `report(generation, playedMs)` is called every 250 ms while there is something to report.
  constructor(report) {
    this.#report = report;
    this.#timer = setInterval(() => this.#reportPlayhead(), PLAYHEAD_EVERY_MS);
  }

  // Takes a speech_begin.
  begin({ generation, codec, sampleRate, preSkip }) {
    this.stop();
    this.#generation = generation;
    this.#sampleRate = sampleRate;
    this.#position = 0;
    this.#endsAt = 0;
    if (codec !== 'opus') return;
    this.#decoder = new OpusDecoder({ sampleRate, preSkip }, (samples, rate, position) => {
      if (generation === this.#generation) this.#schedule(samples, rate, position);
    });
  }

  play(buffer) {
    const header = new DataView(buffer);
    const generation = header.getUint32(4);
    const position = Number(header.getBigUint64(8));
    // A frame of a response that was cut.
    if (generation !== this.#generation) return;
    if (this.#decoder) {
      this.#decoder.decode(position, new Uint8Array(buffer, 16), (header.getUint8(3) & END) !== 0);
      return;
    }
    if (position < this.#position) return; // sent again after a resume
    const pcm = new Int16Array(buffer, 16);
    this.#position = position + pcm.length;
    this.#schedule(Float32Array.from(pcm, (sample) => sample / 32768), this.#sampleRate, position);
  }

  // Plays samples after those that were scheduled before.
  #schedule(samples, rate, position) {
    if (!samples.length) return;
    const audio = this.#context.createBuffer(1, samples.length, rate);
    audio.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer: audio });
    source.connect(this.#context.destination);
    const at = Math.max(this.#endsAt, this.#context.currentTime + LEAD_S);
    this.#endsAt = at + audio.duration;
    this.#scheduled.push({ at, position, length: audio.duration * this.#sampleRate });
    source.onended = () => this.#sources.delete(source);
    this.#sources.add(source);
    source.start(at);
  }

  // Silences the response; frames of it that still arrive are dropped.
  stop() {
    this.#reportPlayhead();
    this.#generation = 0;
    this.#scheduled = [];
    this.#decoder?.close();
    this.#decoder = null;
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
  }

  close() {
    this.stop();
    clearInterval(this.#timer);
    return this.#context.close();
  }

  #reportPlayhead() {
    if (!this.#generation || !this.#scheduled.length) return;
    const now = this.#context.currentTime;
    while (this.#scheduled.length > 1 && this.#scheduled[1].at <= now) this.#scheduled.shift();
    const [{ at, position, length }] = this.#scheduled;
    const samples = position + Math.min(length, Math.max(0, (now - at) * this.#sampleRate));
    this.#report(this.#generation, Math.round(samples * 1000 / this.#sampleRate));
  }
}
