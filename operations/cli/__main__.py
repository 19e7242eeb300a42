from trashnet.cli import main

main()
