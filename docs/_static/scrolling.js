// What is wider than the page can be scrolled by the keyboard, too.
function markScrolling() {
  for (const element of document.querySelectorAll("article pre, article .table-wrapper")) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}
addEventListener("load", markScrolling);
addEventListener("resize", markScrolling);
