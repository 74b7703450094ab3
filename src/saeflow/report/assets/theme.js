"use strict";
// Light or dark: what the reader chose here, else what the system prefers. Runs before the page is drawn, so that it
// never flashes in the wrong one. Some browsers keep nothing for pages from a disk: then the choice lasts for the page.
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      return localStorage.getItem("saeflow-theme");
    } catch {
      return null;
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem("saeflow-theme", theme);
    } catch {
      // the choice lasts for this page
    }
  };

  let chosen = kept();
  const show = () => {
    root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    const button = document.getElementById("theme");
    if (!button) return;
    const other = root.dataset.theme === "dark" ? "light" : "dark";
    button.hidden = false;
    button.textContent = other === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to ${other} colours`);
  };

  show();
  dark.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = root.dataset.theme === "dark" ? "light" : "dark";
      keep(chosen);
      show();
    });
  });
})();
