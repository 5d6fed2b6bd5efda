// A recording as the file that Chromium's fake microphone plays.

const fs = require('node:fs');

// A 16 kHz mono WAV file at 48 kHz, since Chromium takes 44.1 or 48 kHz only.
exports.asMicrophone = function asMicrophone(file) {
  const wav = fs.readFileSync(file);
  const data = wav.indexOf('data') + 8;
  const samples = new Int16Array(wav.buffer.slice(wav.byteOffset + data));
  // The page needs a moment to connect: the recording begins with four seconds of silence.
  const silence = 48_000 * 4;
  const out = Buffer.alloc(44 + (silence + samples.length * 3 + 48_000 * 2) * 2);
  out.write('RIFF', 0);
  out.writeUInt32LE(out.length - 8, 4);
  out.write('WAVEfmt ', 8);
  out.writeUInt32LE(16, 16);
  out.writeUInt16LE(1, 20);
  out.writeUInt16LE(1, 22);
  out.writeUInt32LE(48_000, 24);
  out.writeUInt32LE(96_000, 28);
  out.writeUInt16LE(2, 32);
  out.writeUInt16LE(16, 34);
  out.write('data', 36);
  out.writeUInt32LE(out.length - 44, 40);
  samples.forEach((sample, n) => {
    const next = samples[n + 1] ?? 0;
    for (let third = 0; third < 3; third++) {
      const value = Math.round(sample + ((next - sample) * third) / 3);
      out.writeInt16LE(value, 44 + (silence + n * 3 + third) * 2);
    }
  });
  return out;
};
