// Shows the progress of an export without loading the page again; stops at its end.
"use strict";
const INTERVAL = 2000; // milliseconds
async function update() {
  const section = document.getElementById("progress");
  if (!section || section.dataset.state !== "running") return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const state = page.getElementById("progress");
  if (!state) return;
  if (state.dataset.state !== "running") return location.reload();
  const [bar, newBar] = [section, state].map((e) => e.querySelector("progress"));
  bar.max = newBar.max;
  bar.value = newBar.value;
  section.querySelector("p").textContent = state.querySelector("p").textContent;
  setTimeout(update, INTERVAL);
}
setTimeout(update, INTERVAL);
