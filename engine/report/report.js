'use strict';
// Draws the charts whose numbers stand in #data, and makes tables and pictures answer to mouse and
// keyboard. Names come from files: they only ever become text nodes.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';

  function make(tag, attributes = {}, text) {
    const e = document.createElement(tag);
    for (const k in attributes) e.setAttribute(k, attributes[k]);
    if (text !== undefined) e.textContent = text;
    return e;
  }

  function draw(parent, tag, attributes = {}, text) {
    const e = document.createElementNS(SVG, tag);
    for (const k in attributes) e.setAttribute(k, attributes[k]);
    if (text !== undefined) e.textContent = text;
    parent.appendChild(e);
    return e;
  }

  function format(v) {
    if (v === null || !Number.isFinite(v)) return '–';
    const size = Math.abs(v);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return v.toExponential(2);
    return String(+v.toPrecision(4));
  }

  // ---- scales -----------------------------------------------------------------------------------

  // Numbers 1, 2 or 5 times a power of ten, about `count` of them in [low, high].
  function roundTicks(low, high, count) {
    const span = high - low || 1;
    const power = 10 ** Math.floor(Math.log10(span / count));
    const step = [1, 2, 5, 10].find((m) => span / (m * power) <= count) * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
      ticks.push(+(k * step).toPrecision(12));
    return ticks;
  }

  function logTicks(low, high) {
    const ticks = [];
    const decades = Math.log10(high / low);
    const parts = decades > 3 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
    const stride = Math.max(1, Math.ceil(decades / 8));
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
      if (decades <= 3 || e % stride === 0)
        for (const m of parts) if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
    return ticks;
  }

  // From values to pixels: [from, to] are the pixels of low and high.
  function scale(low, high, from, to, log) {
    const f = log ? Math.log : (v) => v;
    const a = f(low), b = f(high) === f(low) ? f(low) + 1 : f(high);
    return (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  }

  // Frame with ticks; returns the scales of x and y.
  function axes(svg, box, x, y) {
    const toX = scale(x.low, x.high, box.left, box.right, false);
    const toY = scale(y.low, y.high, box.bottom, box.top, y.log);
    const ticks = y.log ? logTicks(y.low, y.high) : roundTicks(Math.min(y.low, y.high), Math.max(y.low, y.high), 5);
    for (const t of ticks) {
      draw(svg, 'line', { class: 'axis', x1: box.left, x2: box.right, y1: toY(t), y2: toY(t) });
      draw(svg, 'text', { x: box.left - 6, y: toY(t) + 4, 'text-anchor': 'end' }, format(t));
    }
    for (const t of x.ticks) {
      draw(svg, 'text', { x: toX(t), y: box.bottom + 17, 'text-anchor': 'middle' }, format(t));
      draw(svg, 'line', { class: 'axis', x1: toX(t), x2: toX(t), y1: box.bottom, y2: box.bottom + 4 });
    }
    return [toX, toY];
  }

  function frame(figure, width, height, label) {
    const svg = document.createElementNS(SVG, 'svg');
    for (const [k, v] of Object.entries({
      width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0, 'aria-label': label
    })) svg.setAttribute(k, v);
    const old = figure.querySelector(':scope > svg');
    if (old) old.replaceWith(svg); else figure.appendChild(svg);
    return svg;
  }

  // The box that says what lies under the cursor; rows of [colour class, name, value].
  function reader(figure) {
    const box = make('div', { class: 'reading', role: 'status', hidden: '' });
    figure.appendChild(box);
    return {
      hide() { box.hidden = true; },
      show(title, rows, x, y) {
        const table = make('table');
        for (const [colour, name, value] of rows) {
          const row = table.appendChild(make('tr'));
          if (colour !== null) row.appendChild(make('td')).appendChild(make('i', { class: 'c' + colour }));
          row.appendChild(make('td', {}, name));
          row.appendChild(make('td', { class: 'n' }, value));
        }
        box.replaceChildren(make('b', {}, title), table);
        box.hidden = false;
        const left = x + 14 + box.offsetWidth > figure.clientWidth ? x - 14 - box.offsetWidth : x + 14;
        box.style.left = Math.max(0, left) + 'px';
        box.style.top = Math.max(0, y - box.offsetHeight / 2) + 'px';
      }
    };
  }

  // {runs: names of one or two runs, charts: […]}
  const data = JSON.parse(document.getElementById('data').textContent);
  const names = data.runs;
  const byRun = (name, other) => (names.length > 1 ? `${name} (${names[other ? 1 : 0]})` : name);

  // ---- curves -----------------------------------------------------------------------------------

  function curves(figure, chart) {
    const colours = new Map();
    const groups = new Map(); // a button each: a curve, and the same one of the other run
    for (const c of chart.curves) {
      if (!colours.has(c.name)) colours.set(c.name, colours.size % 8);
      c.colour = colours.get(c.name);
      c.group = c.validation ? 'validation ' + c.name : c.name;
      c.label = byRun(c.group, c.other);
      c.shown = true;
      if (!groups.has(c.group)) groups.set(c.group, []);
      groups.get(c.group).push(c);
    }
    const values = chart.curves.flatMap((c) => c.y).filter(Number.isFinite);
    const positive = values.length > 0 && values.every((v) => v > 0);
    let log = positive && Math.max(...values) / Math.min(...values) > 100;
    const reading = reader(figure);
    const keys = make('div', { class: 'keys' });
    figure.querySelector('figcaption').after(keys);
    for (const [label, group] of groups) {
      const key = keys.appendChild(make('button', { type: 'button', class: 'c' + group[0].colour, 'aria-pressed': true }));
      const line = draw(draw(key, 'svg', { width: 18, height: 8, 'aria-hidden': true }), 'path', { d: 'M0 4H18' });
      style(line, { ...group[0], other: false });
      key.append(label);
      key.onclick = () => {
        const shown = key.getAttribute('aria-pressed') !== 'true';
        for (const c of group) c.shown = shown;
        key.setAttribute('aria-pressed', shown);
        redraw();
      };
    }
    if (positive) {
      const key = keys.appendChild(make('button', { type: 'button', class: 'scale', 'aria-pressed': log }, 'log'));
      key.onclick = () => {
        log = !log;
        key.setAttribute('aria-pressed', log);
        redraw();
      };
    }

    function style(path, c) {
      path.setAttribute('class', `curve c${c.colour}${c.validation ? ' validation' : ''}${c.other ? ' other' : ''}`);
      path.setAttribute('stroke', 'var(--c)');
    }

    function redraw() {
      const width = Math.max(260, figure.clientWidth), height = 250;
      const box = { left: 58, right: width - 12, top: 10, bottom: height - 40 };
      const svg = frame(figure, width, height, `${chart.title}: ${chart.curves.map((c) => c.label).join(', ')}. Arrow keys read the values.`);
      const shown = chart.curves.filter((c) => c.shown && c.x.length);
      const xs = shown.flatMap((c) => c.x), ys = shown.flatMap((c) => c.y).filter(Number.isFinite);
      if (!ys.length) {
        draw(svg, 'text', { x: width / 2, y: height / 2, 'text-anchor': 'middle' }, 'nothing is shown');
        return;
      }
      let low = Math.min(...ys), high = Math.max(...ys);
      if (!log) {
        const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
        if (low >= 0 && low < 0.35 * high) low = 0; else low -= margin;
        high += margin;
      } else if (low === high) {
        low /= 2;
        high *= 2;
      }
      const first = Math.min(...xs), last = Math.max(...xs);
      const [toX, toY] = axes(svg, box,
        { low: first, high: last === first ? first + 1 : last,
          ticks: roundTicks(first, last, Math.max(2, width / 90)).filter(Number.isInteger) },
        { low, high, log });
      draw(svg, 'text', { x: (box.left + box.right) / 2, y: height - 4, 'text-anchor': 'middle' }, chart.x);
      for (const c of shown) {
        let d = '', pen = 'M';
        c.x.forEach((x, i) => {
          const fits = Number.isFinite(c.y[i]);
          if (fits) d += `${pen}${toX(x).toFixed(1)} ${toY(c.y[i]).toFixed(1)}`;
          pen = fits ? 'L' : 'M';
        });
        if (c.x.length === 1) draw(svg, 'circle', { class: 'dot c' + c.colour, cx: toX(c.x[0]), cy: toY(c.y[0]), r: 4, fill: 'var(--c)' });
        else style(draw(svg, 'path', { d }), c);
      }
      const cursor = draw(svg, 'line', { class: 'cursor', y1: box.top, y2: box.bottom, visibility: 'hidden' });
      const steps = [...new Set(xs)].sort((a, b) => a - b);
      let at = -1;
      function read(i) {
        at = Math.min(steps.length - 1, Math.max(0, i));
        const x = steps[at];
        cursor.setAttribute('visibility', 'visible');
        cursor.setAttribute('x1', toX(x));
        cursor.setAttribute('x2', toX(x));
        const rows = [];
        for (const c of shown) {
          const k = c.x.indexOf(x);
          if (k >= 0) rows.push([c.colour, c.label, format(c.y[k])]);
        }
        reading.show(`${chart.x} ${format(x)}`, rows, svg.offsetLeft + toX(x), figureTop(svg) + height / 2);
      }
      function leave() {
        cursor.setAttribute('visibility', 'hidden');
        reading.hide();
      }
      svg.onpointermove = (e) => {
        const x = e.clientX - svg.getBoundingClientRect().left;
        let nearest = 0;
        steps.forEach((s, i) => {
          if (Math.abs(toX(s) - x) < Math.abs(toX(steps[nearest]) - x)) nearest = i;
        });
        read(nearest);
      };
      svg.onpointerleave = leave;
      svg.onblur = leave;
      svg.onfocus = () => { if (svg.matches(':focus-visible')) read(steps.length - 1); };
      svg.onkeydown = (e) => {
        const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[e.key];
        if (move === undefined) return;
        e.preventDefault();
        read(at + move);
      };
    }
    return redraw;
  }

  // SVG elements have no offsetTop.
  function figureTop(svg) {
    return svg.getBoundingClientRect().top - svg.parentNode.getBoundingClientRect().top;
  }

  // ---- box plots --------------------------------------------------------------------------------

  // Quantile with linear interpolation.
  function quantile(sorted, q) {
    const at = q * (sorted.length - 1), i = Math.floor(at);
    return sorted[i] + (at - i) * ((sorted[i + 1] ?? sorted[i]) - sorted[i]);
  }

  // Box: quartiles and median; whiskers: farthest values within 1.5 boxes (Tukey).
  function summary(values) {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    if (!sorted.length) return null;
    const q1 = quantile(sorted, 0.25), q3 = quantile(sorted, 0.75), reach = 1.5 * (q3 - q1);
    return {
      q1, q3, median: quantile(sorted, 0.5),
      low: sorted.find((v) => v >= q1 - reach), high: sorted.findLast((v) => v <= q3 + reach)
    };
  }

  // Points drawn one beside another, read by hovering or with the arrow keys: [{x, y, c, title, rows}].
  function points(svg, list, reading) {
    const dots = list.map((p) => draw(svg, 'circle', { class: `dot c${p.c}`, cx: p.x, cy: p.y, r: 3, fill: 'var(--c)' }));
    let at = -1;
    function read(i) {
      if (at >= 0) dots[at].classList.remove('at');
      at = Math.min(list.length - 1, Math.max(0, i));
      dots[at].classList.add('at');
      reading.show(list[at].title, list[at].rows, list[at].x, figureTop(svg) + list[at].y);
    }
    function leave() {
      if (at >= 0) dots[at].classList.remove('at');
      reading.hide();
    }
    svg.onpointermove = (e) => {
      const r = svg.getBoundingClientRect(), x = e.clientX - r.left, y = e.clientY - r.top;
      let nearest = -1, least = 20;
      list.forEach((p, i) => {
        const d = Math.hypot(p.x - x, p.y - y);
        if (d < least) [nearest, least] = [i, d];
      });
      if (nearest >= 0) read(nearest); else leave();
    };
    svg.onpointerleave = leave;
    svg.onblur = leave;
    svg.onkeydown = (e) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[e.key];
      if (move === undefined || !list.length) return;
      e.preventDefault();
      read(at + move);
    };
  }

  // What fits a width of so many pixels at about 6.6 pixels a letter.
  function fitted(text, pixels) {
    const letters = Math.max(3, Math.floor(pixels / 6.6));
    return text.length <= letters ? text : text.slice(0, letters - 1) + '…';
  }

  function boxes(figure, chart) {
    const reading = reader(figure);
    return () => {
      const width = Math.max(260, figure.clientWidth), slot = (width - 70) / chart.classes.length;
      const tilted = slot < 70, height = tilted ? 330 : 280;
      const box = { left: 58, right: width - 12, top: 10, bottom: height - (tilted ? 84 : 30) };
      const all = chart.runs.flatMap((r) => r.values.flat()).filter(Number.isFinite);
      const svg = frame(figure, width, height, `${chart.title} of every case by class. Arrow keys read the values.`);
      if (!all.length) return;
      let low = Math.min(...all), high = Math.max(...all);
      const margin = (high - low) * 0.06 || 0.05;
      low = chart.share || low >= 0 ? Math.max(0, low - margin) : low - margin;
      high = chart.share ? Math.min(1, high + margin) : high + margin;
      const [, toY] = axes(svg, box, { low: 0, high: 1, ticks: [] }, { low, high, log: false });
      const list = [];
      chart.classes.forEach((name, k) => {
        const centre = box.left + (k + 0.5) * slot;
        const label = { x: centre, y: box.bottom + 18, 'text-anchor': tilted ? 'end' : 'middle' };
        if (tilted) label.transform = `rotate(-40 ${centre} ${box.bottom + 12})`;
        draw(svg, 'text', label, fitted(name, tilted ? 100 : slot)).appendChild(document.createElementNS(SVG, 'title')).textContent = name;
        const part = Math.min(60, slot * 0.7) / chart.runs.length;
        chart.runs.forEach((run, r) => {
          const s = summary(run.values[k]), x = centre + (r - (chart.runs.length - 1) / 2) * part;
          if (!s) return;
          const half = part * 0.38, colour = { class: `box c${r}`, stroke: 'var(--c)', fill: 'var(--c)' };
          for (const [a, b] of [[s.q1, s.low], [s.q3, s.high]])
            draw(svg, 'line', { class: `whisker c${r}`, stroke: 'var(--c)', x1: x, x2: x, y1: toY(a), y2: toY(b) });
          draw(svg, 'rect', { ...colour, x: x - half, width: 2 * half, y: toY(s.q3), height: Math.max(1, toY(s.q1) - toY(s.q3)) });
          draw(svg, 'line', { class: `whisker c${r}`, stroke: 'var(--c)', 'stroke-width': 3, x1: x - half, x2: x + half, y1: toY(s.median), y2: toY(s.median) });
          run.values[k].forEach((v, i) => {
            if (!Number.isFinite(v)) return;
            const aside = ((i * 0.618034) % 1 - 0.5) * half;
            const rows = [[r, name, v.toFixed(chart.decimals)]];
            list.push({ x: x + aside, y: toY(v), c: r, title: names.length > 1 ? `${run.cases[i]} (${run.name})` : run.cases[i], rows });
          });
        });
      });
      points(svg, list, reading);
    };
  }

  // ---- paired differences -----------------------------------------------------------------------

  // A stem for each case, sorted by its length; up is better.
  function differences(figure, chart) {
    const reading = reader(figure);
    const cases = chart.cases.map((name, i) => ({ name, from: chart.from[i], to: chart.to[i], by: chart.to[i] - chart.from[i] }));
    cases.sort((a, b) => (a.by - b.by) * (chart.higher ? 1 : -1));
    return () => {
      const width = Math.max(260, figure.clientWidth), height = 240;
      const box = { left: 58, right: width - 12, top: 24, bottom: height - 12 };
      const svg = frame(figure, width, height, `${chart.title}: difference of every case. Arrow keys read the values.`);
      const most = Math.max(...cases.map((c) => Math.abs(c.by))) * 1.1 || 1;
      const sign = chart.higher ? 1 : -1;
      const [toX, toY] = axes(svg, box, { low: -0.5, high: cases.length - 0.5, ticks: [] },
        { low: -most * sign, high: most * sign, log: false });
      draw(svg, 'line', { x1: box.left, x2: box.right, y1: toY(0), y2: toY(0), stroke: 'var(--soft)' });
      draw(svg, 'text', { x: box.left, y: 14 }, `↑ ${names[0]} is better`);
      const list = cases.map((c, i) => {
        const better = c.by * sign >= 0;
        const p = {
          x: toX(i), y: toY(c.by), c: better ? 0 : 1, title: c.name,
          rows: [[null, names[1], format(c.from)], [null, names[0], format(c.to)],
            [better ? 0 : 1, 'difference', (c.by > 0 ? '+' : '') + format(c.by)]]
        };
        draw(svg, 'line', { class: `whisker c${p.c}`, stroke: 'var(--c)', x1: p.x, x2: p.x, y1: toY(0), y2: p.y });
        return p;
      });
      points(svg, list, reading);
    };
  }

  // ---- intervals --------------------------------------------------------------------------------

  // A row for each arm: its mean difference from the baseline, and the interval of that.
  function intervals(figure, chart) {
    const reading = reader(figure);
    return () => {
      const width = Math.max(260, figure.clientWidth), line = 26, height = 58 + line * chart.rows.length;
      const names = Math.min(220, width * 0.4), box = { left: names + 10, right: width - 14, top: 24, bottom: height - 30 };
      const svg = frame(figure, width, height, `${chart.title}. Arrow keys read the values.`);
      const ends = chart.rows.flatMap((r) => [r.low ?? r.mean, r.mean, r.high ?? r.mean]).concat(0);
      let low = Math.min(...ends), high = Math.max(...ends);
      const margin = (high - low) * 0.08 || 0.05;
      low -= margin;
      high += margin;
      const toX = scale(low, high, box.left, box.right, false);
      for (const t of roundTicks(low, high, Math.max(2, Math.floor((box.right - box.left) / 80)))) {
        draw(svg, 'line', { class: 'axis', x1: toX(t), x2: toX(t), y1: box.top, y2: box.bottom });
        draw(svg, 'text', { x: toX(t), y: box.bottom + 17, 'text-anchor': 'middle' }, format(t));
      }
      draw(svg, 'line', { x1: toX(0), x2: toX(0), y1: box.top, y2: box.bottom, stroke: 'var(--soft)' });
      if (chart.better)
        draw(svg, 'text', { x: chart.better > 0 ? box.right : box.left, y: 14, 'text-anchor': chart.better > 0 ? 'end' : 'start' },
          chart.better > 0 ? 'better →' : '← better');
      const list = chart.rows.map((r, i) => {
        const y = box.top + (i + 0.5) * line;
        draw(svg, 'text', { x: names, y: y + 4, 'text-anchor': 'end' }, fitted(r.name, names)).appendChild(document.createElementNS(SVG, 'title')).textContent = r.name;
        if (r.low !== null)
          draw(svg, 'line', { class: 'whisker c0', stroke: 'var(--c)', 'stroke-width': 3, x1: toX(r.low), x2: toX(r.high), y1: y, y2: y });
        const rows = [[0, 'difference', (r.mean > 0 ? '+' : '') + format(r.mean)]];
        if (r.low !== null) rows.push([null, '95 % interval', `${format(r.low)} to ${format(r.high)}`]);
        rows.push([null, 'p', format(r.p)], [null, 'cases', String(r.pairs)]);
        return { x: toX(r.mean), y, c: 0, title: `${r.name} against ${r.baseline}`, rows };
      });
      points(svg, list, reading);
    };
  }

  // ---- tables -----------------------------------------------------------------------------------

  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make('button', { type: 'button' }, head.textContent);
      head.replaceChildren(button);
      button.onclick = () => {
        const rising = head.getAttribute('aria-sort') !== 'ascending';
        for (const h of heads) h.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
        const value = (row) => row.cells[column].textContent;
        const rows = [...body.rows].sort((a, b) => {
          const x = parseFloat(value(a)), y = parseFloat(value(b));
          if (head.classList.contains('n')) {
            if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
            return rising ? x - y : y - x;
          }
          return (rising ? 1 : -1) * value(a).localeCompare(value(b), undefined, { numeric: true });
        });
        body.append(...rows);
      };
    });
  }

  // ---- pictures ---------------------------------------------------------------------------------

  function viewer(figure) {
    const input = figure.querySelector('input'), output = figure.querySelector('output');
    input.oninput = () => {
      figure.style.setProperty('--i', input.value);
      output.textContent = `${+input.value + 1}/${+input.max + 1}`;
    };
    // A browser may keep a slider's place over a reload.
    input.oninput();
  }

  function layerButton(button) {
    button.onclick = () => {
      const shown = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', shown);
      button.closest('section').classList.toggle('no-' + button.dataset.layer, !shown);
    };
  }

  // ---- start ------------------------------------------------------------------------------------

  const kinds = { curves, boxes, differences, intervals };
  const redraws = [];
  for (const chart of data.charts) {
    const redraw = kinds[chart.kind](document.getElementById(chart.id), chart);
    redraw();
    redraws.push(redraw);
  }
  document.querySelectorAll('table.sortable').forEach(sortable);
  document.querySelectorAll('.viewer').forEach(viewer);
  document.querySelectorAll('[data-layer]').forEach(layerButton);
  let width = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth === width) return;
    width = innerWidth;
    redraws.forEach((f) => f());
  });
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((d) => {
    if (d.id === 'cases-table') d.open = true;
  }));
})();
