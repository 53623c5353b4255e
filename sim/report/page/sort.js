document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.parentElement, body = head.closest("table").tBodies[0];
    var place = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
    var key = function (row) {
      var cell = row.cells[place], value = cell.dataset.value;
      return value === undefined ? cell.textContent.trim() : Number(value);
    };
    var rows = Array.from(body.rows).sort(function (one, other) {
      var a = key(one), b = key(other), numbers = (typeof b === "number") - (typeof a === "number");
      if (numbers) return numbers;
      return (up ? 1 : -1) * (typeof a === "number" ? a - b : a.localeCompare(b));
    });
    rows.forEach(function (row) { body.appendChild(row); });
    Array.from(head.parentElement.cells).forEach(function (each) { each.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
});
