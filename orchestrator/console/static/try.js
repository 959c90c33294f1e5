// Helps of the page Try: the chosen picture is shown before it is sent, and tasks are found by a part of their name.
"use strict";

document.getElementById("picture")?.addEventListener("change", (event) => {
  const preview = document.getElementById("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  const [file] = event.target.files;
  preview.hidden = !file;
  if (file) preview.src = URL.createObjectURL(file);
});

// Formats that this browser cannot show, such as TIFF, are sent unseen.
document.getElementById("preview")?.addEventListener("error", (event) => {
  event.target.hidden = true;
});

document.querySelector("[data-filter]")?.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const item of document.querySelectorAll(`${event.target.dataset.filter} li`)) {
    item.hidden = !item.textContent.toLowerCase().includes(wanted);
  }
});
