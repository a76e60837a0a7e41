"use strict";
const LEAVE_OUT = "-";
const selects = [...document.querySelectorAll("select[data-image]")];

function choices() {
  const chosen = { dataset: document.body.dataset.spec, leave_out: [], relabel: {} };
  const seen = new Set();
  for (const select of selects) {
    if (seen.has(select.dataset.image)) continue;
    seen.add(select.dataset.image);
    if (select.value === LEAVE_OUT) chosen.leave_out.push(select.dataset.image);
    else if (select.value) chosen.relabel[select.dataset.image] = select.value.slice(1);
  }
  return chosen;
}

function count() {
  const { leave_out, relabel } = choices();
  document.getElementById("count").textContent =
    `${leave_out.length} to leave out, ${Object.keys(relabel).length} with another label`;
  for (const select of selects) select.closest("figure").classList.toggle("changed", select.value !== "");
}

function choose(image, value) {
  // An image may be shown twice.
  for (const select of selects) if (select.dataset.image === image) select.value = value;
}

for (const select of selects) {
  const there = new Set([...select.options].map((option) => option.value));
  for (const option of document.getElementById("classes").content.cloneNode(true).children) {
    if (!there.has(option.value) && option.textContent !== select.dataset.label) {
      select.add(new Option(`change to ${option.textContent}`, option.value));
    }
  }
  select.addEventListener("change", () => {
    choose(select.dataset.image, select.value);
    count();
  });
}

for (const button of document.querySelectorAll("button[data-all]")) {
  button.addEventListener("click", () => {
    for (const select of button.closest("section").querySelectorAll("select[data-image]")) {
      if (button.dataset.all === "keep") choose(select.dataset.image, "");
      else if (select.dataset.suggested) choose(select.dataset.image, `=${select.dataset.suggested}`);
    }
    count();
  });
}

document.getElementById("save")?.addEventListener("click", () => {
  const text = JSON.stringify(choices(), null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "choices.json";
  link.click();
  URL.revokeObjectURL(link.href);
});

if (document.getElementById("count")) count();
