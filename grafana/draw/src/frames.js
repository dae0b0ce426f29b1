// Answers of Prometheus as Grafana's data frames, as its Prometheus data source would make them.
import { FieldType, toDataFrame } from '@grafana/data';

const number = (text) => (text === null || text === 'NaN' ? null : text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : parseFloat(text));

export function legendOf(format, metric) {
  if (format && format !== '__auto') {
    return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '');
  }
  const labels = Object.entries(metric).filter(([name]) => name !== '__name__');
  return labels.length ? labels.map(([, value]) => value).join(', ') : undefined;
}

function series(target, result) {
  const points = result.values ?? [result.value];
  const name = legendOf(target.legendFormat, result.metric);
  return toDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000), config: { interval: target.step * 1000 } },
      {
        name: 'Value',
        type: FieldType.number,
        values: points.map(([, value]) => number(value)),
        labels: result.metric,
        config: { displayNameFromDS: name },
      },
    ],
  });
}

// A missing point is a hole and not a line across it: Grafana's data source fills the grid of steps likewise.
function onGrid(result, from, to, step) {
  const known = new Map(result.values.map(([at, value]) => [Math.round(at), value]));
  const values = [];
  for (let at = from; at <= to; at += step) {
    values.push([at, known.get(Math.round(at)) ?? null]);
  }
  return { ...result, values };
}

function table(target, results, several) {
  const labels = [...new Set(results.flatMap((each) => Object.keys(each.metric)))].filter((name) => name !== '__name__');
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: results.map((each) => each.value[0] * 1000) },
      ...labels.map((name) => ({ name, type: FieldType.string, values: results.map((each) => each.metric[name] ?? '') })),
      {
        name: several ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        values: results.map((each) => number(each.value[1])),
      },
    ],
  });
}

// Cumulative buckets become counts between edges, in the order of the edges.
function buckets(target, results) {
  const sorted = [...results].sort((a, b) => number(a.metric.le) - number(b.metric.le));
  return sorted.map((each, at) => {
    const below = at ? number(sorted[at - 1].value[1]) : 0;
    const own = String(Math.max(0, number(each.value[1]) - below));
    return series(target, { metric: each.metric, value: [each.value[0], own] });
  });
}

export function framesOf(panel, answers, range) {
  const several = panel.targets.length > 1;
  return panel.targets.flatMap((target) => {
    const results = answers[target.refId] ?? [];
    if (!results.length) {
      return [];
    }
    if (target.format === 'table') {
      return [table(target, results, several)];
    }
    if (target.format === 'heatmap') {
      return buckets(target, results);
    }
    const drawn = target.instant
      ? results
      : results.map((each) => onGrid(each, range.from, range.to, range.step));
    return drawn.map((each) => series({ ...target, step: range.step }, each));
  });
}
