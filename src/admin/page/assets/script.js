"use strict";
// Keeps the state and the plots of the overview current. The page works without this script.

const INTERVAL = 15000;

async function refresh() {
  const state = document.getElementById("state");
  if (document.hidden || state === null) {
    return;
  }
  const response = await fetch("/state", { cache: "no-store" });
  if (!response.ok || response.redirected) {
    // The session has ended.
    location.reload();
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const current = page.getElementById("state");
  if (current !== null) {
    state.replaceWith(current);
  }
  for (const plot of document.querySelectorAll("img.plot")) {
    plot.src = `${plot.src.split("?")[0]}?at=${Date.now()}`;
  }
}

if (document.getElementById("state") !== null) {
  // The service may be restarting.
  setInterval(() => refresh().catch(() => {}), INTERVAL);
}
