
// The table of all observations: filtered, sorted and shown by pages; only the rows of one page are drawn.
{
  const ROWS = 100;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const columns = data.columns;
  for (const key of ["status", "verdict", "version"]) columns[key] = columns[key].of.map((k) => columns[key].words[k]);
  const table = byId("runs");
  const heads = Array.from(table.tHead.rows[0].cells);
  const digits = { thermal: 3, flux: 3, offset: 2, gain: 2, seconds: 1 };
  const collator = new Intl.Collator("en", { numeric: true });
  const date = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 19).replace("T", " ");
  let searched = null;
  let rows = Array.from({ length: data.n }, (_, k) => k);
  let page = 0;
  let key = "observed";
  let way = -1;

  const isBeyond = (name, value) => {
    const limits = data.limits[name];
    if (!limits || value === null) return false;
    return value > limits[1] || (limits[0] !== null && value < limits[0]);
  };
  const textOf = (name, k) => {
    const value = columns[name][k];
    if (value === null || value === "") return "\u2013";
    if (name === "observed" || name === "ended") return date(value);
    if (name === "seeded") return value ? "yes" : "no";
    if (name === "verdict") return `${data.signs[value] || ""} ${value}`.trim();
    return name in digits ? value.toFixed(digits[name]) : value;
  };
  const cellOf = (name, k) => {
    const cell = document.createElement(name === "name" ? "th" : "td");
    const link = name === "name" ? columns.link[k] : "";
    let inside = cell;
    if (name === "name") cell.scope = "row";
    if (link) {
      inside = document.createElement("a");
      inside.href = link;
      cell.append(inside);
    }
    inside.textContent = textOf(name, k);
    if (name in digits) cell.className = "number";
    if (isBeyond(name, columns[name][k])) {
      const mark = document.createElement("b");
      mark.className = "beyond";
      mark.textContent = "!";
      cell.append(" ", mark);
    }
    return cell;
  };
  const draw = () => {
    const last = Math.max(0, Math.ceil(rows.length / ROWS) - 1);
    page = Math.max(0, Math.min(page, last));
    const shown = rows.slice(page * ROWS, (page + 1) * ROWS);
    const drawn = shown.map((k) => {
      const row = document.createElement("tr");
      row.append(...heads.map((head) => cellOf(head.dataset.key, k)));
      return row;
    });
    table.tBodies[0].replaceChildren(...drawn);
    table.parentElement.scrollTop = 0;
    const which = shown.length ? `${page * ROWS + 1} to ${page * ROWS + shown.length} of ${rows.length}` : "none";
    byId("page-text").textContent = `Page ${page + 1} of ${last + 1}`;
    byId("shown").textContent = `Observations ${which}` + (rows.length < data.n ? ` that match, of ${data.n}` : "");
    byId("page-first").disabled = byId("page-before").disabled = page === 0;
    byId("page-last").disabled = byId("page-after").disabled = page === last;
  };
  const sort = () => {
    const values = columns[key];
    // What is not known stays at the end either way; what is equal in the order in which it was observed.
    const unknown = (value) => value === null || value === "";
    rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (unknown(x) || unknown(y)) return unknown(x) - unknown(y) || a - b;
      return way * (typeof x === "string" ? collator.compare(x, y) : x - y) || a - b;
    });
  };
  const filter = () => {
    const words = byId("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = byId("filter-status").value;
    const verdict = byId("filter-verdict").value;
    const seeded = byId("filter-seeded").value;
    const from = Date.parse(byId("filter-from").value) / 1000;
    const until = Date.parse(byId("filter-until").value) / 1000 + 86400;
    if (words.length && searched === null) {
      searched = columns.name.map((name, k) =>
        [name, columns.status[k], columns.verdict[k], columns.version[k], columns.why[k]].join(" ").toLowerCase());
    }
    rows = [];
    for (let k = 0; k < data.n; k++) {
      if (status && columns.status[k] !== status) continue;
      if (verdict && columns.verdict[k] !== verdict) continue;
      if (seeded && columns.seeded[k] !== (seeded === "yes")) continue;
      const at = columns.observed[k];
      if (!isNaN(from) && !(at !== null && at >= from)) continue;
      if (!isNaN(until) && !(at !== null && at < until)) continue;
      if (words.length && !words.every((word) => searched[k].includes(word))) continue;
      rows.push(k);
    }
    page = 0;
    sort();
    draw();
  };
  for (const head of heads) {
    head.firstElementChild.addEventListener("click", () => {
      const name = head.dataset.key;
      way = name === key ? -way : 1;
      key = name;
      page = 0;
      sort();
      draw();
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      said.textContent = `Sorted by ${head.textContent}, ${way === 1 ? "ascending" : "descending"}`;
    });
  }
  const filters = byId("filters");
  for (const control of filters.querySelectorAll("input, select")) control.addEventListener("input", filter);
  byId("filter-none").addEventListener("click", () => {
    for (const control of filters.querySelectorAll("input, select")) control.value = "";
    filter();
  });
  const turn = (to) => () => {
    page = to(page);
    draw();
  };
  byId("page-first").addEventListener("click", turn(() => 0));
  byId("page-before").addEventListener("click", turn((n) => n - 1));
  byId("page-after").addEventListener("click", turn((n) => n + 1));
  byId("page-last").addEventListener("click", turn(() => Infinity));
  filters.hidden = byId("pager").hidden = false;
  byId("no-script").remove();
  // A browser that goes back keeps what was chosen.
  filter();
}

// The map of antennas: one stop of the tabulator, the arrow keys go from cell to cell.
{
  const map = document.getElementById("map");
  if (map) {
    const told = document.getElementById("cell-text");
    const body = map.tBodies[0];
    const dates = Array.from(map.tHead.rows[1].cells, (cell) => cell.getAttribute("aria-label"));
    const say = (cell) => {
      const text = cell.dataset.text || "good in all runs";
      told.textContent = `${cell.parentElement.cells[0].textContent}, ${dates[cell.cellIndex]}: ${text}`;
    };
    let current = body.rows[0].cells[body.rows[0].cells.length - 1];
    current.tabIndex = 0;
    // Where the map is wider than the window the latest days are seen first.
    map.parentElement.scrollLeft = map.parentElement.scrollWidth;
    map.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) say(cell);
    });
    map.addEventListener("focusin", (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) say(cell);
    });
    map.addEventListener("click", (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) go(cell);
    });
    const go = (cell) => {
      current.tabIndex = -1;
      cell.tabIndex = 0;
      current = cell;
      cell.focus();
    };
    map.addEventListener("keydown", (event) => {
      const row = current.parentElement;
      const [n, m] = [body.rows.length, row.cells.length];
      const [y, x] = [row.sectionRowIndex, current.cellIndex];
      const to = {
        ArrowRight: [y, x + 1], ArrowLeft: [y, x - 1], ArrowDown: [y + 1, x], ArrowUp: [y - 1, x],
        Home: [y, 1], End: [y, m - 1], PageUp: [y - 10, x], PageDown: [y + 10, x],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      go(body.rows[Math.max(0, Math.min(n - 1, to[0]))].cells[Math.max(1, Math.min(m - 1, to[1]))]);
    });
  }
}
