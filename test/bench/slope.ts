/** Whether something grows, and how sure that is: a straight line through samples, by least squares. */

export interface Slope {
  /** Of the line's first value, per hour. */
  perHour: number;
  /** Two standard errors of `perHour`: what noise alone may make of it, 19 times in 20. */
  noise: number;
}

/** `samples` are of seconds and a value above zero; fewer than three say nothing, which is infinite noise. */
export function slopeOf(samples: readonly (readonly [seconds: number, value: number])[]): Slope {
  const count = samples.length;
  const mean = (which: 0 | 1) => samples.reduce((sum, sample) => sum + sample[which], 0) / count;
  const [meanAt, meanValue] = [mean(0), mean(1)];
  const spread = samples.reduce((sum, [at]) => sum + (at - meanAt) ** 2, 0);
  if (count < 3 || spread === 0) return { perHour: 0, noise: Number.POSITIVE_INFINITY };
  const slope = samples.reduce((sum, [at, value]) => sum + (at - meanAt) * (value - meanValue), 0) / spread;
  const rest = samples.reduce((sum, [at, value]) => sum + (value - meanValue - slope * (at - meanAt)) ** 2, 0);
  const error = Math.sqrt(rest / (count - 2) / spread);
  const first = meanValue + slope * ((samples[0]?.[0] ?? 0) - meanAt);
  return { perHour: (slope * 3600) / first, noise: (2 * error * 3600) / first };
}
