"use strict";
// Draws the page from its data. Texts are only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const SVG = byId("model").namespaceURI;

const put = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
};
const el = (name, attributes = {}, ...children) => put(document.createElement(name), attributes, children);
const draw = (name, attributes = {}, ...children) => put(document.createElementNS(SVG, name), attributes, children);
const fixed = (x, digits) => x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = p => (p > 0 && p < 0.0005 ? "< 0.1" : fixed(100 * p, 1)) + " %";
const several = (n, one, many = one + "s") => n.toLocaleString("en") + " " + (n === 1 ? one : many);
const bytes = n => {
  const [size, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([size]) => n >= size) || [1, "B"];
  return fixed(n / size, size === 1 ? 0 : n / size < 10 ? 2 : 1) + " " + unit;
};
const short = (text, length) => [...text].length > length ? [...text].slice(0, length - 1).join("") + "…" : text;

const searches = data.beams.length > 0;
const steps = new Map(data.steps.map(step => [step.step + "/" + step.branch, step]));

// What each answer was picked from: one entry a token, with the branch that it came from.
const paths = data.sequences.map((answer, number) => {
  const ids = answer.tokens.map(token => token.id);
  let rank = 0;
  return answer.tokens.map((token, at) => {
    const entry = { at, token, branch: searches ? rank : number };
    if (searches) {
      const found = (data.beams[at]?.candidates || []).filter(c => c.parent === rank && c.token.id === ids[at]);
      const next = found.find(c => c.fate === "runs" && at + 1 < ids.length) || found[0];
      rank = next?.rank ?? 0;
    }
    return entry;
  });
});

// What became of guesses: by step, of the first answer.
const guessed = new Map();
for (const guess of data.guesses) {
  guess.tokens.forEach((token, i) => {
    if (i <= guess.right) guessed.set(guess.step + i, i < guess.right ? "right" : "wrong");
  });
}

const now = { answer: 0, at: 0, branch: 0, stage: 0, ended: true };
const path = () => paths[now.answer] || [];
const current = () => steps.get(now.at + "/" + now.branch);

const choose = (at, branch) => {
  now.at = Math.max(0, Math.min(at, path().length - 1));
  now.branch = branch ?? path()[now.at]?.branch ?? 0;
  const last = (current()?.stages.length || 1) - 1;
  now.stage = now.ended ? last : Math.min(now.stage, last);
  show();
};
const stage = number => {
  const last = (current()?.stages.length || 1) - 1;
  now.stage = Math.max(0, Math.min(number, last));
  now.ended = now.stage === last;
  show();
};

// The index of the candidate that went on from a step, in the eyes of the chosen answer.
const taken = step => {
  if (step.pick) return step.pick.candidate;
  const here = path()[step.step];
  return here && here.branch === step.branch ? step.candidates.findIndex(token => token.id === here.token.id) : -1;
};

const tokens = () => {
  const list = byId("tokens");
  list.replaceChildren();
  const prompt = data.prompt.slice(-40);
  const before = data.prompt.length - prompt.length;
  if (before) list.append(el("li", { class: "prompt" }, `… ${before} more`));
  prompt.forEach(token => list.append(el("li", { class: "prompt", title: "prompt, id " + token.id }, token.text)));
  path().forEach(({ at, token, branch }) => {
    const step = steps.get(at + "/" + branch);
    const p = step ? step.stages[0].probabilities[taken(step)] ?? 0 : null;
    const mark = data.guesses.length ? guessed.get(at) : undefined;
    const said = mark === "right" ? ", guessed right" : mark === "wrong" ? ", guessed wrong" : "";
    list.append(el("li", {}, el("button", {
      type: "button", "data-at": at, "aria-label": `token ${at + 1}: ${token.text}${p === null ? "" : ", " + percent(p)}${said}`,
      title: `id ${token.id}` + (p === null ? "" : `, ${percent(p)} before the processors`) + said, onclick: () => choose(at),
    }, token.text, p === null ? null : el("i", { style: `width:${(100 * p).toFixed(1)}%` }),
    mark ? el("sup", { class: mark }, mark === "right" ? "✓" : "✗") : null)));
  });
};

const reason = step => {
  const why = byId("why"), last = step.stages[step.stages.length - 1];
  why.replaceChildren();
  const pick = step.pick;
  if (!pick) {
    const sums = (data.beams[step.step]?.candidates || []).filter(c => c.parent === step.branch);
    const kept = sums.filter(c => c.fate !== "dropped");
    why.append(`Beam ${step.branch}: ${several(kept.length, "continuation")} of it ${kept.length === 1 ? "is" : "are"} among the best of all`);
    kept.forEach((c, i) => why.append(i ? ", " : ": ", el("b", {}, c.token.text), ` (sum ${fixed(c.score, 2)}, ${c.fate === "runs" ? "now beam " + c.rank : "ended"})`));
    why.append(".");
    return;
  }
  const token = step.candidates[pick.candidate], p = last.probabilities[pick.candidate];
  why.append(el("b", {}, token.text));
  if (pick.why === "likeliest") {
    why.append(` was taken because nothing is likelier: ${percent(p)} of what is left.`);
  } else if (pick.why === "drawn") {
    why.append(` was drawn: the number ${fixed(pick.uniform, 4)} fell into its part of the line, ${fixed(pick.below, 4)} to ${fixed(pick.below + p, 4)}.`);
  } else {
    why.append(" won the contrast: likely enough, and least like what stands before (table below).");
  }
  const mark = guessed.get(step.step);
  if (mark) why.append(mark === "right" ? " It had been guessed right, and was read ahead." : " Something else had been guessed here.");
};

// Where a draw fell: the probabilities of all ids side by side.
const drawn = step => {
  const place = byId("line"), pick = step.pick;
  place.replaceChildren();
  if (!pick || pick.uniform === null || pick.below === null) return;
  const p = step.stages[step.stages.length - 1].probabilities[pick.candidate], x = f => 6 + 588 * f;
  place.append(draw("svg", { class: "line", viewBox: "0 0 600 34", role: "img", "aria-label": `the draw, ${fixed(pick.uniform, 4)}, on a line from 0 to 1` },
    draw("rect", { class: "seg", x: 6, y: 12, width: 588, height: 9, rx: 4 }),
    draw("rect", { class: "seg mine", x: x(pick.below), y: 12, width: Math.max(1.5, 588 * p), height: 9 }),
    draw("line", { class: "cursor", x1: x(pick.uniform), x2: x(pick.uniform), y1: 5, y2: 28 }),
    draw("text", { x: 6, y: 33 }, "0"), draw("text", { x: 594, y: 33, "text-anchor": "end" }, "1")));
};

const bars = step => {
  const shown = step.stages[now.stage], chosen = taken(step);
  const most = Math.max(...step.stages.flatMap(stage => stage.probabilities), 1e-9);
  byId("caption").textContent = `${several(shown.left, "id")} left, entropy ${fixed(shown.entropy, 2)} bits: as open as ${fixed(2 ** shown.entropy, 1)} equal choices.`;
  byId("score-name").textContent = step.stages[0].name === shown.name || !searches ? "score" : "log-probability";
  const body = byId("bars");
  // Rows stay where they are while one steps through the processors, so that bars move.
  while (body.rows.length > step.candidates.length) body.deleteRow(-1);
  step.candidates.forEach((token, i) => {
    const row = body.rows[i] || body.insertRow();
    if (!row.cells.length) {
      row.append(el("th", { scope: "row" }), el("td", { class: "wide" }, el("div", { class: "bar" }, el("i"), el("span"))), el("td", { class: "number" }));
    }
    const out = shown.scores[i] === null, p = shown.probabilities[i];
    row.className = (i === chosen ? "picked " : "") + (out ? "out" : "");
    row.cells[0].textContent = (i === chosen ? "▸ " : "") + token.text;
    row.cells[0].title = `${token.text} (id ${token.id})`;
    row.querySelector("i").style.width = out ? "0" : (62 * p / most).toFixed(2) + "%";
    row.querySelector("span").textContent = out ? "ruled out" : percent(p) + (i === chosen ? " · picked" : "");
    row.cells[2].textContent = out ? "−∞" : fixed(shown.scores[i], 2);
  });
};

const weighed = step => {
  const place = byId("weighed");
  place.replaceChildren();
  if (!step.pick?.weighed.length) return;
  const cells = values => values.map(value => el("td", { class: "number" }, fixed(value, 3)));
  place.append(el("table", {},
    el("caption", {}, "The contrast: probability counts for a token, likeness of its state to an earlier one against it."),
    el("thead", {}, el("tr", {}, ...["token", "probability", "likeness", "score"].map((name, i) => el("th", { scope: "col", class: i ? "number" : null }, name)))),
    el("tbody", {}, ...step.pick.weighed.map(w => el("tr", { class: w.candidate === step.pick.candidate ? "picked" : null },
      el("th", { scope: "row" }, (w.candidate === step.pick.candidate ? "▸ " : "") + step.candidates[w.candidate].text),
      ...cells([w.probability, w.likeness, w.score]))))));
};

const picks = (place, labels, chosen, act) => {
  place.replaceChildren(...(labels.length > 1 ? labels : []).map((label, i) =>
    el("button", { type: "button", "aria-pressed": String(i === chosen), onclick: () => act(i) }, label)));
};

const show = () => {
  const step = current(), here = path()[now.at];
  picks(byId("answers"), data.sequences.map((answer, i) => "answer " + (i + 1) + (answer.score === null ? "" : ` (${fixed(answer.score, 2)})`)), now.answer,
    i => { now.answer = i; tokens(); choose(Math.min(now.at, path().length - 1)); });
  for (const button of byId("tokens").querySelectorAll("button")) {
    const chosen = Number(button.dataset.at) === now.at;
    if (chosen) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
    button.setAttribute("aria-pressed", String(chosen));
  }
  byId("h-step").textContent = here ? `Token ${now.at + 1} of ${path().length}: ${short(here.token.text, 40)}` : "Nothing was written";
  byId("back").disabled = now.at === 0;
  byId("on").disabled = now.at >= path().length - 1;
  const beside = data.steps.filter(step => step.step === now.at).map(step => step.branch);
  picks(byId("branches"), searches ? beside.map(branch => "beam " + branch) : [], beside.indexOf(now.branch), i => choose(now.at, beside[i]));
  for (const id of ["stages", "slider", "bars", "caption", "line", "weighed"]) byId(id).closest("table, input, div").hidden = !step;
  if (step) {
    picks(byId("stages"), step.stages.map(stage => stage.name), now.stage, stage);
    Object.assign(byId("slider"), { max: step.stages.length - 1, value: now.stage, hidden: step.stages.length < 2 });
    byId("slider").setAttribute("aria-valuetext", step.stages[now.stage].name);
    reason(step); drawn(step); bars(step); weighed(step);
  } else {
    byId("why").textContent = "Nothing was kept of this step: the limit of steps came before it (--steps).";
  }
  entropy();
  if (searches) tree();
};

const entropy = () => {
  const list = path().map(({ at, branch }) => steps.get(at + "/" + branch)).filter(Boolean);
  byId("entropy-note").textContent = "Entropy in bits: dashed as the model says, solid behind the processors. 0 is certain.";
  if (!list.length) return;
  const ends = list.map(step => [step.stages[0].entropy, step.stages[step.stages.length - 1].entropy]);
  const most = Math.max(...ends.flat(), 1), width = 460, x = i => 34 + (list.length < 2 ? 0 : i / (list.length - 1)) * (width - 46), y = v => 108 - v / most * 94;
  const line = which => ends.map((pair, i) => (i ? "L" : "M") + x(i).toFixed(1) + " " + y(pair[which]).toFixed(1)).join("");
  const chosen = list.findIndex(step => step.step === now.at);
  byId("entropy").replaceChildren(draw("svg", {
    viewBox: `0 0 ${width} 128`, role: "img", "aria-label": "entropy of each step; the step shown: " + (chosen < 0 ? "none" : fixed(ends[chosen][1], 2) + " bits"),
    onclick: event => {
      const box = event.currentTarget.getBoundingClientRect();
      const at = Math.round(((event.clientX - box.left) / box.width * width - 34) / (width - 46) * (list.length - 1));
      choose(list[Math.max(0, Math.min(at, list.length - 1))].step);
    },
  },
  ...[0, most / 2, most].flatMap(v => [draw("line", { class: "grid", x1: 34, x2: width - 12, y1: y(v), y2: y(v) }), draw("text", { x: 28, y: y(v) + 4, "text-anchor": "end" }, fixed(v, 1))]),
  draw("path", { class: "before", d: line(0) }), draw("path", { class: "after", d: line(1) }),
  chosen < 0 ? null : draw("line", { class: "cursor", x1: x(chosen), x2: x(chosen), y1: 8, y2: 110 }),
  draw("text", { x: 34, y: 125 }, "first token"), draw("text", { x: width - 12, y: 125, "text-anchor": "end" }, "last")));
};

const cache = () => {
  const passes = data.passes, last = passes[passes.length - 1];
  if (!last) return;
  byId("cache-note").textContent = `${bytes(last.bytes)} for ${several(last.positions, "position")} at the end, after ${several(passes.length, "pass", "passes")}. It grows by pages, which beams share.`;
  const most = Math.max(...passes.map(pass => pass.bytes), 1), width = 460;
  const x = i => 58 + i / passes.length * (width - 70), y = v => 108 - v / most * 94;
  const top = passes.map((pass, i) => `L${x(i).toFixed(1)} ${y(pass.bytes).toFixed(1)}L${x(i + 1).toFixed(1)} ${y(pass.bytes).toFixed(1)}`).join("");
  byId("cache").replaceChildren(draw("svg", { viewBox: `0 0 ${width} 128`, role: "img", "aria-label": `bytes of the cache after each pass, ${bytes(passes[0].bytes)} to ${bytes(last.bytes)}` },
    ...[0, most].flatMap(v => [draw("line", { class: "grid", x1: 58, x2: width - 12, y1: y(v), y2: y(v) }), draw("text", { x: 52, y: y(v) + 4, "text-anchor": "end" }, bytes(v))]),
    draw("path", { class: "area", d: `M58 108${top}L${x(passes.length).toFixed(1)} 108Z` }),
    draw("text", { x: 58, y: 125 }, "first pass"), draw("text", { x: width - 12, y: 125, "text-anchor": "end" }, "last")));
};

// Beams in columns, one for each step: running ones by rank, then those that ended, then, if wanted, those given up.
const tree = () => {
  const W = 118, H = 38, all = byId("dropped").checked, nodes = [], edges = [];
  let height = 0, ranks = new Map([[0, null]]);
  data.beams.forEach((beam, column) => {
    const next = new Map(), running = beam.candidates.filter(c => c.fate === "runs");
    const under = beam.candidates.filter(c => c.fate === "finished" || all && c.fate === "dropped");
    const place = (c, row) => {
      const parent = ranks.get(c.parent);
      const node = { c, x: column * W + 6, y: row * H + 24, column, row };
      height = Math.max(height, node.y + H);
      if (parent) edges.push({ from: parent, to: node });
      nodes.push(node);
      return node;
    };
    running.forEach(c => next.set(c.rank, place(c, c.rank)));
    under.sort((a, b) => (b.fate === "finished") - (a.fate === "finished") || b.score - a.score).forEach((c, i) => place(c, running.length + i));
    ranks = next;
  });
  const kind = c => (c.returned ? "kept " : "") + (c.fate === "finished" ? "done " : c.fate === "dropped" ? "lost " : "");
  const svg = draw("svg", { width: data.beams.length * W + 12, height, viewBox: `0 0 ${data.beams.length * W + 12} ${height}` },
    ...data.beams.map((_, i) => draw("text", { x: i * W + 10, y: 14 }, String(i + 1))),
    ...edges.map(({ from, to }) => {
      const [x1, y1, x2, y2] = [from.x + W - 26, from.y + 14, to.x, to.y + 14];
      return draw("path", { class: "edge " + kind(to.c), d: `M${x1} ${y1}C${x1 + 14} ${y1} ${x2 - 14} ${y2} ${x2} ${y2}` });
    }),
    ...nodes.map(({ c, x, y, column }) => {
      const sign = c.fate === "finished" ? "■ " : c.fate === "dropped" ? "× " : "";
      const said = `step ${column + 1}, ${c.token.text}, sum ${fixed(c.score, 2)}, ` + (c.fate === "finished" ? `ended with score ${fixed(c.final_score, 2)}` : c.fate === "dropped" ? "given up" : "beam " + c.rank) + (c.returned ? ", on the way to an answer" : "");
      const go = () => choose(column, c.parent);
      const here = column === now.at && c.parent === now.branch;
      return draw("g", { class: "node " + kind(c) + (here ? "here" : ""), tabindex: 0, role: "button", "aria-label": said, onclick: go,
        onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); } } },
      draw("title", {}, said), draw("rect", { x, y, width: W - 26, height: 28, rx: c.fate === "finished" ? 3 : 9 }),
      draw("text", { class: "token", x: x + 7, y: y + 12 }, sign + short(c.token.text, c.fate === "runs" ? 11 : 9)),
      draw("text", { x: x + 7, y: y + 24, style: "font-size:10px" }, (c.fate === "finished" ? "score " + fixed(c.final_score, 2) : fixed(c.score, 2)) + (c.returned ? " ★" : "")));
    }));
  const place = byId("tree"), left = place.scrollLeft;
  const focused = [...place.querySelectorAll(".node")].indexOf(document.activeElement);
  place.replaceChildren(svg);
  if (focused >= 0) svg.querySelectorAll(".node")[focused]?.focus({ preventScroll: true });
  const wanted = now.at * W;
  place.scrollLeft = wanted < left || wanted > left + place.clientWidth - W ? Math.max(0, wanted - W) : left;
};

const guesses = () => {
  const right = data.guesses.reduce((sum, guess) => sum + guess.right, 0);
  const made = data.guesses.reduce((sum, guess) => sum + guess.tokens.length, 0);
  byId("guess-note").textContent = `${right} of ${several(made, "guess", "guesses")} were right (✓): the model read them in one pass with the token before. From the first wrong one (✗) on they are forgotten.`;
  byId("guesses").append(...data.guesses.filter(guess => guess.tokens.length).map(guess => el("li", {},
    el("button", { type: "button", class: "at", onclick: () => choose(guess.step) }, "token " + (guess.step + 1)),
    ...guess.tokens.map((token, i) => el("span", { class: "mono " + (i < guess.right ? "right" : "wrong") }, (i < guess.right ? "✓ " : i === guess.right ? "✗ " : "– ") + token.text)))));
};

const begin = () => {
  const wrote = data.sequences.reduce((sum, answer) => sum + answer.tokens.length, 0);
  byId("title").textContent = "How it decoded";
  byId("summary").textContent = `${data.model}: ${data.method}` + (/sampling|drawn/.test(data.method) ? `, seed ${data.seed}` : "");
  const chain = data.steps[0] ? data.steps[0].stages.slice(1).map(stage => stage.name).filter(name => name !== "log-probabilities") : [];
  const mean = data.steps.length ? data.steps.reduce((sum, step) => sum + step.stages[0].entropy, 0) / data.steps.length : 0;
  const cards = [["prompt", several(data.prompt.length, "token")], ["written", several(wrote, "token")], ["passes", String(data.passes.length)],
    ["processors", String(chain.length)], ["mean entropy", fixed(mean, 2) + " bits"],
    ["ended", [...new Set(data.sequences.map(answer => answer.finish_reason))].join(", ")]];
  byId("cards").append(...cards.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  byId("legend").textContent = "The line under a token is its probability before the processors; dashed tokens are the prompt."
    + (data.guesses.length ? " ✓ was guessed right, ✗ wrong." : "")
    + (data.left_out ? ` ${several(data.left_out, "step was", "steps were")} not kept.` : "");
  byId("s-beams").hidden = !searches;
  byId("s-guesses").hidden = !data.guesses.some(guess => guess.tokens.length);
  byId("beam-note").textContent = "A column a step, the best beam on top; ■ ended there, ★ and thick lines lead to an answer. Numbers are sums of log-probabilities; a tinted box goes on from the beam shown above.";
  byId("back").addEventListener("click", () => choose(now.at - 1));
  byId("on").addEventListener("click", () => choose(now.at + 1));
  byId("slider").addEventListener("input", event => stage(Number(event.target.value)));
  byId("dropped").addEventListener("change", tree);
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input[type=range]") && event.key !== "Home" && event.key !== "End") return;
    const moves = { ArrowLeft: () => choose(now.at - 1), ArrowRight: () => choose(now.at + 1), ArrowUp: () => stage(now.stage - 1),
      ArrowDown: () => stage(now.stage + 1), Home: () => choose(0), End: () => choose(path().length - 1) };
    if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
  });
  guesses(); cache(); tokens();
  document.querySelector("main").hidden = false;
  choose(0);
};
begin();
