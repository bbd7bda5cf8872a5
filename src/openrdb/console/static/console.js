// Copies the text that a button names; where browsers allow no copying, selects it.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } catch {
    getSelection().selectAllChildren(text);
  }
});
// Where the pages of an instance do not fit side by side, the present one is in sight.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
// A part that renews itself waits while somebody has opened something in it, and may be writing.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.id === "live" && event.target.querySelector("details[open]")) event.preventDefault();
});
// Escape closes the form that one is in, and goes back to what opened it.
document.addEventListener("keydown", (event) => {
  const opened = event.key === "Escape" && document.activeElement.closest("details[open]");
  if (!opened) return;
  opened.open = false;
  opened.querySelector("summary").focus();
});
