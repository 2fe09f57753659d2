"use strict";
// Tables sort by the heading that is pressed; figures by their value, names by the numbers in them.
(() => {
  const FIGURE = /^-?[\d,]*\.?\d+(e[+-]?\d+)?/i;

  const valueOf = (text) => {
    const found = FIGURE.exec(text);
    return found ? Number(found[0].replaceAll(",", "")) : NaN;
  };

  const compare = (left, right, figures) => {
    if (!figures) return left.localeCompare(right, "en", { numeric: true });
    const [a, b] = [valueOf(left), valueOf(right)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a - b;
  };

  const sort = (heading) => {
    const row = heading.parentElement;
    const column = [...row.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    const figures = heading.classList.contains("figure");
    const body = row.closest("table").tBodies[0];
    const text = (line) => line.children[column].textContent;
    const lines = [...body.rows].sort((a, b) => compare(text(a), text(b), figures));
    body.append(...(down ? lines.reverse() : lines));
    for (const other of row.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  };

  const copy = async (button) => {
    const block = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(block);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  };

  for (const button of document.querySelectorAll("table.sortable thead button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => copy(button));
  }
})();
