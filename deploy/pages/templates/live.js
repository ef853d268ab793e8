// Polls the run's state, loads the page again when it has changed, and says when the connection is lost.
"use strict";
const lost = document.getElementById("lost");
let shown = null;

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

function replace(part, fresh) {
  if (part.innerHTML === fresh.innerHTML) return;
  const open = new Set([...part.querySelectorAll("details[open]")].map((d) => d.closest("figure").id));
  part.innerHTML = fresh.innerHTML;
  part.querySelectorAll("details").forEach((d) => { d.open = open.has(d.closest("figure").id); });
}

async function look() {
  try {
    const { page } = await (await get("state.json")).json();
    if (page !== shown) {
      const fresh = new DOMParser().parseFromString(await (await get("./")).text(), "text/html");
      document.querySelectorAll("section").forEach((s) => replace(s, fresh.getElementById(s.id)));
      shown = page;
    }
    lost.hidden = true;
    lost.textContent = "";
  } catch {
    if (lost.hidden) {
      lost.textContent = `Connection lost at ${new Date().toLocaleTimeString()}; showing the last data received.`;
      lost.hidden = false;
    }
  }
  setTimeout(look, 2000);
}

look();
