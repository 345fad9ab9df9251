// Keys on the page of a message; everything is reachable without them.
"use strict";
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  const links = { j: "next-hit", k: "previous-hit" };
  if (event.key in links) {
    document.getElementById(links[event.key])?.click();
  } else if (event.key === "/") {
    event.preventDefault();
    location.assign("/search");
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  }
});
