// Measures the best-fitting tone in PCM: [frequency in Hz, amplitude, SNR in dB].

function measure(pcm, rate) {
  const crossings = [];
  for (let i = 1; i < pcm.length; i++) {
    if (pcm[i - 1] < 0 && pcm[i] >= 0) crossings.push(i - 1 + pcm[i - 1] / (pcm[i - 1] - pcm[i]));
  }
  if (crossings.length < 3) return [0, 0, 0];
  const hz = ((crossings.length - 1) * rate) / (crossings.at(-1) - crossings[0]);
  const angle = (i) => (2 * Math.PI * hz * i) / rate;
  const mean = (of) => pcm.reduce((sum, value, i) => sum + of(value, i), 0) / pcm.length;
  const s = 2 * mean((value, i) => value * Math.sin(angle(i)));
  const c = 2 * mean((value, i) => value * Math.cos(angle(i)));
  const residual = mean((value, i) => (value - s * Math.sin(angle(i)) - c * Math.cos(angle(i))) ** 2);
  const amplitude = Math.hypot(s, c);
  return [hz, amplitude, 10 * Math.log10(Math.max(amplitude ** 2 / 2, 1e-9) / Math.max(residual, 1e-9))];
}

module.exports = { measure };
