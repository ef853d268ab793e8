// Asks the server every two seconds for what has changed, and says so when it does not answer.
"use strict";
const seen = new Map();
const lost = document.getElementById("lost");

function replace(id, html) {
  const part = document.getElementById(id);
  const open = [...part.querySelectorAll("details")].map((d) => d.open);
  part.innerHTML = html;
  part.querySelectorAll("details").forEach((d, i) => { d.open = open[i] ?? false; });
}

async function look() {
  try {
    const answer = await fetch("parts.json", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    for (const [id, html] of Object.entries(await answer.json())) {
      if (seen.get(id) !== html) replace(id, html);
      seen.set(id, html);
    }
    lost.hidden = true;
    lost.textContent = "";
  } catch (error) {
    if (lost.hidden) {
      const time = new Date().toLocaleTimeString();
      lost.textContent = `The server of this page does not answer since ${time}. What stands below is what it said last.`;
      lost.hidden = false;
    }
  }
  setTimeout(look, 2000);
}

look();
