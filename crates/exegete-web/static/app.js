"use strict";

// Keys: j and → next latent, k and ← previous, / search. Everything works without them.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const follow = (rel) => {
    const link = document.querySelector(`a[rel=${rel}]`);
    if (link) link.click();
  };
  if (event.key === "j" || event.key === "ArrowRight") follow("next");
  else if (event.key === "k" || event.key === "ArrowLeft") follow("prev");
  else if (event.key === "/") {
    const search = document.getElementById("search");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
});

for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// A page of what is under way looks for newer figures, until it has those of the end.
const look = async () => {
  const there = document.getElementById("training");
  if (!there?.dataset.refresh || document.hidden) return;
  const unanswered = document.getElementById("unanswered");
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(`it answers with ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const newer = page.getElementById("training");
    if (!newer) throw new Error("it answers with another page");
    const focused = document.activeElement?.getAttribute("href");
    there.replaceWith(document.adoptNode(newer));
    if (focused) newer.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  } catch (error) {
    if (unanswered) {
      unanswered.textContent = `The server is not heard: ${error.message}. These are the last figures it gave.`;
      unanswered.hidden = false;
    }
  }
};
const refresh = Number(document.getElementById("training")?.dataset.refresh);
if (refresh > 0) {
  setInterval(look, refresh * 1000);
  document.addEventListener("visibilitychange", look);
}
